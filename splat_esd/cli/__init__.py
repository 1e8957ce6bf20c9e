"""The command line: `main` dispatches, each command has its help."""
