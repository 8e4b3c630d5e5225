"""Parallelism of one run: the device mesh and several processes (multi-host)."""
