"""Experiments in the plane, where every score is known exactly.

The guidance is the program's own; only the two networks are replaced by formulas.
"""
