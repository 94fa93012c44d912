"""Week 22: how models fail under attack, and what happens inside them."""
