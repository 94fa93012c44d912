"""What more than one week trains or measures with."""
