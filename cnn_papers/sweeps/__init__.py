"""Many runs: what is asked for, the processes that run it, here or under SLURM."""
