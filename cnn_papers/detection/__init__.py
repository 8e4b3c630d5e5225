"""Finds objects: OverFeat's localizer and detector, SPP-net's and R-CNN's windows."""
