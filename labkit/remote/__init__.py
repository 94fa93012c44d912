"""Runs on rented machines: `device=ssh://user@host` and `device=sky://H100:1`."""
