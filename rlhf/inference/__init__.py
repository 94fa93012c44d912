"""More computation per question instead of more training: `python -m rlhf.inference.train`."""
