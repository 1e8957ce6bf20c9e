"""`splat-esd bench`: repeatable measurements of the rasteriser and of mesh quality."""
