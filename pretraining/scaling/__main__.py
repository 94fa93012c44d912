"""`python -m pretraining.scaling` is `python -m pretraining.scaling.train`."""

from pretraining.scaling.train import train

train()
