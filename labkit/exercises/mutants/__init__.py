"""Mechanical mistakes that the tests of an exercise must notice."""
