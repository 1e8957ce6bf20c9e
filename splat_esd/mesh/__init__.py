"""A textured triangle mesh from a splat: surface, texture, and how well it matches."""
