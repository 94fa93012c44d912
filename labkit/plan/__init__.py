"""What a run would take, here and on rented machines."""
