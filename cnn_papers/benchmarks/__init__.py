"""The measurements of the command `benchmark`."""
