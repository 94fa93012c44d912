"""Toolformer in small: a language model that teaches itself where a tool helps."""
