"""A run: its command line, its start and end, its step loop and its outputs."""
