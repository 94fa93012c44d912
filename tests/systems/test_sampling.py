"""Sampling against a sort of the whole vocabulary, week 7's filters, and counted draws."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from pretraining import keep_top_k, keep_top_p
from systems.engine.sampling import Sampling, distribution, inside, pick, sample, uniforms


def some(batch: int = 5, vocabulary: int = 11) -> Tensor:
    return 2 * torch.randn(batch, vocabulary, generator=torch.Generator().manual_seed(1))


def every(logits: Tensor, top_k: int, top_p: float) -> Tensor:
    """`inside` of all tokens of all rows: bool (B, V)."""
    batch, vocabulary = logits.shape
    p = logits.softmax(-1).repeat_interleave(vocabulary, dim=0)
    tokens = torch.arange(vocabulary).repeat(batch)
    ks, ps = torch.full((len(p),), top_k), torch.full((len(p),), top_p)
    return inside(p, tokens, ks, ps).view(batch, vocabulary)


@pytest.mark.exercise("engine.sampling.inside")
@pytest.mark.parametrize("top_k", [0, 1, 2, 5, 11, 40])
@pytest.mark.parametrize("top_p", [0.01, 0.3, 0.8, 0.97, 1.0])
def test_inside_is_what_week_7_keeps(top_k: int, top_p: float) -> None:
    logits = some()
    kept = keep_top_k(logits, top_k) if top_k else logits
    if top_p < 1:
        kept = keep_top_p(kept, top_p)
    assert torch.equal(every(logits, top_k, top_p), kept.isfinite())


@pytest.mark.exercise("engine.sampling.inside")
def test_rows_have_settings_of_their_own() -> None:
    p = torch.tensor([[0.5, 0.3, 0.15, 0.05]]).repeat(7, 1)
    before = p.clone()
    tokens = torch.tensor([1, 1, 2, 2, 3, 0, 2])
    top_k = torch.tensor([0, 0, 2, 3, 0, 1, 3])
    top_p = torch.tensor([0.51, 0.49, 1.0, 1.0, 1.0, 0.001, 0.84])
    found = inside(p, tokens, top_k, top_p)
    # In the last row 0.8 comes before token 2, of the 0.95 of the three likeliest: 0.842.
    assert found.tolist() == [True, False, False, True, True, True, False]
    assert torch.equal(p, before)
    assert inside(p[6:], tokens[6:], top_k[6:], torch.tensor([0.85])).tolist() == [True]
    assert inside(p[:1], tokens[:1], top_k[:1], top_p[:1]).tolist() == [True]


@pytest.mark.exercise("engine.sampling.inside")
def test_equal_tokens_are_inside_together() -> None:
    p = torch.full((4, 4), 0.25)
    found = inside(p, torch.arange(4), torch.ones(4, dtype=torch.int64), torch.full((4,), 0.1))
    assert found.all()


@pytest.mark.exercise("engine.sampling.inside")
def test_the_likelier_ones_must_have_less_than_p() -> None:
    """Exactly p is enough: the next token is outside."""
    p, tokens = torch.tensor([[0.5, 0.25, 0.25]]), torch.tensor([1])
    for top_p, expected in ((0.5, False), (0.50001, True)):
        found = inside(p, tokens, torch.tensor([0]), torch.tensor([top_p]))
        assert found.tolist() == [expected]


@pytest.mark.exercise("engine.sampling.inside")
def test_without_top_p_rounding_excludes_nothing() -> None:
    """The likelier tokens' sum rounds to 1 here, and the last one must still be possible."""
    p = torch.tensor([[1.0, 1e-12, 1e-20]])
    found = inside(p, torch.tensor([2]), torch.tensor([0]), torch.tensor([1.0]))
    assert found.tolist() == [True]


def test_pick_inverts_the_distribution_function() -> None:
    p = torch.tensor([[0.0, 0.2, 0.0, 0.3, 0.5, 0.0]]).repeat(6, 1)
    u = torch.tensor([0.0, 0.19, 0.21, 0.49, 0.51, 0.9999999], dtype=torch.float64)
    assert pick(p, u).tolist() == [1, 1, 3, 3, 4, 4]
    assert pick(10 * p, u).tolist() == [1, 1, 3, 3, 4, 4]


def test_uniforms_are_even_and_depend_on_everything() -> None:
    u = uniforms(range(20_000), [3] * 20_000, 0)
    counts = torch.histc(u.float(), 20, 0, 1)
    assert (counts - 1000).abs().max() < 150  # five deviations
    v = uniforms([7] * 20_000, range(20_000), 0)
    assert abs(float(torch.corrcoef(torch.stack([u, v]))[0, 1])) < 0.03
    assert abs(float(torch.corrcoef(torch.stack([v[1:], v[:-1]]))[0, 1])) < 0.03
    assert uniforms([1], [2], 0) != uniforms([1], [2], 1)
    assert uniforms([-1], [2], 0) == uniforms([2**64 - 1], [2], 0)


@pytest.mark.parametrize(
    "sampling",
    [
        Sampling(),
        Sampling(0.5),
        Sampling(1.5, top_k=3),
        Sampling(1.0, top_p=0.7),
        Sampling(1.3, top_k=6, top_p=0.5),
        Sampling(1.0, top_p=0.05),
    ],
)
def test_tokens_come_as_often_as_they_should(sampling: Sampling) -> None:
    """10,000 requests that differ in nothing but the seed, against the sorted distribution."""
    logits, count = some(1, 9), 10_000
    rows = [Sampling(**{**vars(sampling), "seed": i}) for i in range(count)]
    tokens = torch.tensor(sample(logits.expand(count, -1), rows, [0] * count))
    share = torch.bincount(tokens, minlength=9) / count
    scaled = logits / sampling.temperature
    scaled = keep_top_k(scaled, sampling.top_k) if sampling.top_k else scaled
    expected = keep_top_p(scaled, sampling.top_p).softmax(-1)[0]
    assert torch.equal(share > 0, expected > 0)
    assert (share - expected).abs().max() < 0.025
    torch.testing.assert_close(distribution(logits, sampling)[0].float(), expected)


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    logits = some(4)
    rows = [Sampling(1.2, 0, 0.9, seed=3), Sampling(0), Sampling(0.7, 4, seed=3), Sampling(seed=9)]
    together = sample(logits, rows, [5, 1, 2, 0])
    alone = [sample(logits[i : i + 1], [rows[i]], [(5, 1, 2, 0)[i]])[0] for i in range(4)]
    assert together == alone
    assert together[1] == int(logits[1].argmax())
    other = sample(logits.flip(0), rows[::-1], [0, 2, 1, 5])
    assert other == together[::-1]


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"temperature": -0.1}, "temperature must be 0 or more, got -0.1"),
        ({"temperature": float("inf")}, "temperature must be 0 or more"),
        ({"temperature": float("nan")}, "temperature must be 0 or more"),
        ({"top_p": 0.0}, "top_p must be above 0 and up to 1"),
        ({"top_p": 1.01}, "top_p must be above 0"),
        ({"top_k": -1}, "top_k must be 0"),
        ({"max_tokens": 0}, "max_tokens must be 1 or more"),
    ],
)
def test_impossible_settings_are_refused(settings: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        Sampling(**settings)  # type: ignore[arg-type]
