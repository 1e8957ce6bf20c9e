"""Toys in two dimensions, where every score is known exactly: what the equation does, and cannot.

The guidance is the program's own; only the two networks are replaced by formulas.
"""
