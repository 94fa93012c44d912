"""Tables of measured results, made from records."""
