"""The parts of AlphaFold 2 (Jumper et al. 2021), small enough to train on a laptop. See train.py."""
