"""Floating-point operations of small language models, as the scaling laws count them.

2 N for every token read or written, 6 N for every token trained on (forward and backward), with N
the weights that multiply: those of the layers and of the head. Kaplan et al. 2020, section 2.1.
"""

from __future__ import annotations

from pretraining import GPT


def weights(model: GPT) -> int:
    """N: the parameters in the layers and in the head; looking up an embedding is free."""
    return model.count_parameters(embeddings=False) + model.head.weight.numel()


def inference_flops(model: GPT, tokens: float) -> float:
    """2 N for each token."""
    return 2.0 * weights(model) * tokens


def training_flops(model: GPT, tokens: float) -> float:
    """6 N for each token."""
    return 6.0 * weights(model) * tokens
