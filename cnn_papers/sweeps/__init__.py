"""Sweeps: requests for many runs, and the processes that run them, here or under SLURM."""
