"""Bytes on disk to batches on the devices."""
