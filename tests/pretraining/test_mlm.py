"""Who is hidden, how, and who is asked for."""

import math

import pytest
import torch

from pretraining import GPT, Shape, mask_tokens
from pretraining.mlm import IGNORE, masked_batch, masked_metrics

MASK, V = 60, 50  # the mask is outside of the vocabulary, so that no random token is one


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
    assert int(x[x != MASK].max()) < V
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
def test_all_shares_within_four_standard_deviations() -> None:
    """Every token is chosen, and 40,000 are many: a share off by two thirds of a percent shows."""
    tokens, x, y = masked(1.0)
    assert torch.equal(y, tokens)
    n = tokens.numel()
    shares = {"hidden": (x == MASK, 0.8), "kept": (x == tokens, 0.1 + 0.1 / V)}
    shares["random"] = ((x != MASK) & (x != tokens), 0.1 - 0.1 / V)
    for name, (found, expected) in shares.items():
        error = 4 * math.sqrt(expected * (1 - expected) / n)
        assert share(found) == pytest.approx(expected, abs=error), name


@pytest.mark.exercise("mlm.mask_tokens")
def test_tokens_are_chosen_independently_of_their_neighbours_and_of_what_they_become() -> None:
    _, x, y = masked(0.5)
    chosen = (y != IGNORE).float()
    rows, columns = chosen.mean(dim=1), chosen.mean(dim=0)  # 400 rows of 100
    assert float(rows.std()) == pytest.approx(0.5 / math.sqrt(100), rel=0.15)
    assert float(columns.std()) == pytest.approx(0.5 / math.sqrt(400), rel=0.3)
    hidden = (x == MASK).float()
    for first, second in ((chosen[:, :-1], chosen[:, 1:]), (chosen[:-1], chosen[1:]),
                          (hidden[:, :-1], hidden[:, 1:]), (hidden[:-1], hidden[1:])):  # fmt: skip
        both = torch.stack([first.flatten(), second.flatten()])
        assert abs(float(torch.corrcoef(both)[0, 1])) < 4 / math.sqrt(first.numel())


@pytest.mark.exercise("mlm.mask_tokens")
@pytest.mark.parametrize("shape", [(1, 1), (1, 9), (9, 1), (2, 3)])
def test_rates_of_nothing_and_everything_in_any_shape(shape: tuple[int, int]) -> None:
    tokens = torch.full(shape, 7)
    for rate in (0.0, 1.0):
        draws = torch.Generator().manual_seed(0)
        x, y = mask_tokens(tokens, MASK, V, rate, draws)
        assert (x.shape, y.shape, x.dtype, y.dtype) == (shape, shape, torch.int64, torch.int64)
        if rate:
            assert torch.equal(y, tokens)
        else:
            assert torch.equal(x, tokens)
            assert (y == IGNORE).all()


@pytest.mark.exercise("mlm.mask_tokens")
def test_all_draws_come_from_the_generator() -> None:
    tokens = torch.arange(40).view(4, 10)
    found = []
    for seed in (1, 2):
        torch.manual_seed(seed)
        before = torch.get_rng_state()
        found.append(mask_tokens(tokens, MASK, V, 0.6, torch.Generator().manual_seed(5)))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    draws = torch.Generator().manual_seed(5)
    first, second = (mask_tokens(tokens, MASK, V, 0.6, draws)[1] for _ in range(2))
    assert not torch.equal(first, second), "the generator moves on"
    other = mask_tokens(tokens, MASK, V, 0.6, torch.Generator().manual_seed(6))[1]
    assert not torch.equal(first, other)


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


def test_a_masked_batch_is_a_function_of_its_seed() -> None:
    """What lets a masked run resume: nothing is drawn from the state of the process."""
    tokens, found = torch.arange(60).view(3, 20) % V, []
    for seed in (1, 2):
        torch.manual_seed(seed)
        found.append(masked_batch(tokens, MASK, V, 0.3, seed=(5 << 32) + 7))
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])
    assert not torch.equal(found[0][1], masked_batch(tokens, MASK, V, 0.3, (5 << 32) + 8)[1])


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
