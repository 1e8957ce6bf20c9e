"""A study: prompts x methods x seeds on one machine or a cluster, and one report."""
