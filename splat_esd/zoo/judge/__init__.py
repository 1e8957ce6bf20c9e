"""The judge: a classifier for metrics only. Nothing that generates may import it."""
