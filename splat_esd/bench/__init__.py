"""`splat-esd bench`: how fast this machine draws, by measurements anybody can repeat."""
