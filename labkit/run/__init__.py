"""A run: its command line, its life, its loop and what it leaves behind."""
