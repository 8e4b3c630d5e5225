"""Meshes of devices and processes of one run."""
