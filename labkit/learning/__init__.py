"""Training and measuring, shared by more than one week."""
