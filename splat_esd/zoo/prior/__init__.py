"""The embedded prior: its data, its networks, its training."""
