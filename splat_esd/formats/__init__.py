"""Readers and writers of splat files, one module for each format."""
