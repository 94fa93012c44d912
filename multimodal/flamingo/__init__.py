"""Flamingo in small: a frozen language model that sees pictures. See train.py."""
