"""Settings: from command-line words to a typed config."""
