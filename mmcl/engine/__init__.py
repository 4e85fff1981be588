"""How a task is trained: configuration, the loop on Accelerate, checkpoints, resuming. Knows no task by name."""
