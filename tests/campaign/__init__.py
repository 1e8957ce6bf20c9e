"""The campaign against losing runs and crashing: `python -m tests.campaign`."""
