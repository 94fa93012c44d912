"""Models small enough for a test, whose likeliest token is well ahead of the next."""

from collections.abc import Callable

import pytest
import torch

from pretraining import GPT, Shape


@pytest.fixture(scope="session")
def make_gpt() -> Callable[..., GPT]:
    """make_gpt(seed, positions) -> a GPT-2 of 50 tokens in evaluation mode."""

    def make(seed: int = 0, positions: int = 64, layers: int = 2) -> GPT:
        torch.manual_seed(seed)
        model = GPT(Shape(50, positions, 16, layers, 2)).eval()
        for weight in model.parameters():
            if weight.dim() == 2:
                torch.nn.init.normal_(weight, std=2 * 16**-0.5)
            elif weight.dim() == 1:
                weight.data.add_(0.1 * torch.randn_like(weight))
        return model

    return make


@pytest.fixture(scope="session")
def gpt(make_gpt: Callable[..., GPT]) -> GPT:
    return make_gpt()


@pytest.fixture(scope="session")
def prompts() -> list[list[int]]:
    """Seven prompts of unequal lengths, two of which begin alike."""
    generator = torch.Generator().manual_seed(5)
    rows = [torch.randint(50, (n,), generator=generator).tolist() for n in (1, 5, 11, 23, 4)]
    common = torch.randint(50, (17,), generator=generator).tolist()
    return [*rows, [*common, 3, 4], [*common, 7]]
