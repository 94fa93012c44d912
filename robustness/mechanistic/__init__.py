"""Mechanistic interpretability: `python -m robustness.mechanistic.train`."""
