"""Scaling laws measured: sizes under budgets of equal compute. See train.py."""
