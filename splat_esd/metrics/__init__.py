"""Metrics: what a finished asset is worth."""
