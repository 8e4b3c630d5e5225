"""Layers and helpers that two or more papers use."""
