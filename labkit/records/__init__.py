"""Result records: what a run was, on what, and what came out."""
