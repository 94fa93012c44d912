"""The parts of AlphaFold 2 (Jumper et al. 2021), small enough for a laptop. See train.py."""
