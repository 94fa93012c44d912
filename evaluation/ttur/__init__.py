"""The two time-scale update rule of week 12's paper, on week 9's GAN."""
