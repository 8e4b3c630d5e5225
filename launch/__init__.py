"""Launches runs: many on a machine or cluster (`sweep`), one over several hosts (scripts)."""
