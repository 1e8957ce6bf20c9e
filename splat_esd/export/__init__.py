"""Everything that a finished run or a splat file is exported to."""
