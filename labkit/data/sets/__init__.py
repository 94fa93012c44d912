"""Readers of datasets, one module a kind."""
