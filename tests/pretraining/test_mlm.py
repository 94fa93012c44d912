"""Who is hidden, how, and who is asked for."""

import math

import pytest
import torch

from pretraining import GPT, Shape, mask_tokens
from pretraining.mlm import IGNORE, masked_batch, masked_metrics

MASK, V = 50, 50  # the mask is outside of the vocabulary, so that no random token is one


def masked(rate: float = 0.15, n: int = 40_000) -> tuple[torch.Tensor, ...]:
    tokens = torch.randint(V, (n // 100, 100), generator=torch.Generator().manual_seed(0))
    return tokens, *mask_tokens(tokens, MASK, V, rate, torch.Generator().manual_seed(1))


def share(x: torch.Tensor) -> float:
    return float(x.float().mean())


@pytest.mark.exercise("mlm.mask_tokens")
def test_of_the_chosen_80_are_hidden_10_random_10_kept() -> None:
    tokens, x, y = masked()
    chosen = y != IGNORE
    assert share(chosen) == pytest.approx(0.15, abs=0.01)
    assert share(x[chosen] == MASK) == pytest.approx(0.8, abs=0.02)
    other = x[chosen & (x != MASK)] != tokens[chosen & (x != MASK)]
    assert share(other) == pytest.approx(0.5 * (V - 1) / V, abs=0.05)


@pytest.mark.exercise("mlm.mask_tokens")
def test_the_others_are_untouched_and_not_asked_for() -> None:
    tokens, x, y = masked(0.4)
    chosen = y != IGNORE
    assert share(chosen) == pytest.approx(0.4, abs=0.02)
    assert torch.equal(x[~chosen], tokens[~chosen])
    assert torch.equal(y[chosen], tokens[chosen])


@pytest.mark.exercise("mlm.mask_tokens")
def test_random_tokens_come_from_the_whole_vocabulary() -> None:
    tokens, x, _ = masked(1.0)
    replaced = x[(x != MASK) & (x != tokens)]
    counts = torch.bincount(replaced, minlength=V)
    assert len(counts) == V
    assert counts.min() > 0.5 * counts.float().mean()


@pytest.mark.exercise("mlm.mask_tokens")
def test_masking_is_repeatable_and_leaves_its_input_alone() -> None:
    tokens = torch.randint(V, (20, 30))
    before = tokens.clone()
    one, two = (mask_tokens(tokens, MASK, V, 0.3, torch.Generator().manual_seed(7)) for _ in "ab")
    assert torch.equal(one[0], two[0])
    assert torch.equal(one[1], two[1])
    assert torch.equal(tokens, before)
    assert not torch.equal(masked_batch(tokens, MASK, V, 0.3, 1)[0], one[0])


def test_an_untrained_model_guesses_and_the_unigrams_are_counted() -> None:
    """Half of the text is token 3: what the unigrams reach is its share, and their entropy."""
    torch.manual_seed(9)
    text = torch.where(torch.rand(9000) < 0.5, 3, torch.randint(50, (9000,)))
    model = GPT(Shape(51, 20, 16, 1, 2), causal=False)
    metrics = masked_metrics(model, text, text, mask=50, rate=0.15)
    assert metrics["masked_loss"] == pytest.approx(math.log(51), abs=0.1)
    assert metrics["unigram_accuracy"] == pytest.approx(51, abs=5)
    entropy = -0.51 * math.log(0.51) - 0.49 * math.log(0.49 / 49)
    assert metrics["unigram_loss"] == pytest.approx(entropy, abs=0.15)
