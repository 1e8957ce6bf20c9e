"""The zoo's toys: how they are built, coloured, dressed, described and drawn."""
