"""Week 16: learning from preferences and from rewards."""
