"""The train step and its parts: losses, optimiser, schedules, placement on a mesh."""
