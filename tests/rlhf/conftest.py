"""Models small enough for a test."""

from collections.abc import Callable

import pytest
import torch

from pretraining import GPT, Shape
from rlhf.preferences import Pair

END = 0
PAIRS = [
    Pair([5, 6], [7, 8, END], [9, END]),
    Pair([3, 4, 10], [11, END], [12, 13, 14, 15, END]),
    Pair([1, 2, 3], [20, 21, END], [22, END]),
]


@pytest.fixture(scope="session")
def make_gpt() -> Callable[..., GPT]:
    """make_gpt(seed, positions) -> a GPT of 30 tokens, width 16, in evaluation mode."""

    def make(seed: int = 0, positions: int = 16) -> GPT:
        torch.manual_seed(seed)
        model = GPT(Shape(30, positions, 16, 2, 2))
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(0.15 * torch.randn_like(parameter))
        return model.eval()

    return make


@pytest.fixture
def pairs() -> list[Pair]:
    """Three pairs of unequal lengths."""
    return [Pair(*(list(part) for part in pair)) for pair in PAIRS]
