"""What a stopped run is restored from."""
