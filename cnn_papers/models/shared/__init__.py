"""Layers and checks that several papers use."""
