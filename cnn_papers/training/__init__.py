"""Step, losses, optimiser, mesh, checkpoint, writer."""
