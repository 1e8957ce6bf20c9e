"""A study: prompts x methods x seeds, run wherever there is room, and one report at the end."""
