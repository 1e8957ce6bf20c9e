"""A run around Algorithm 1: its folder, its checkpoints, its live view, its summary."""
