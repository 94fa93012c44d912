"""A reward learned from comparisons of trajectories: `python -m rlhf.trajectories.train`."""
