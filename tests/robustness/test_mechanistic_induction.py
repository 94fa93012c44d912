"""Scores of heads against loops and built examples; the model against the week that it rests on."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustness.mechanistic import induction
from robustness.mechanistic.hooks import run_with_cache, run_with_hooks
from robustness.mechanistic.jobs import Induction
from robustness.mechanistic.model import AttentionOnly, rms_norm
from robustness.mechanistic.patterns import TEST, generator_at, is_repeat, repeated
from robustness.mechanistic.settings import InductionSettings


def attention_of(target: list[int], heads: int = 1) -> torch.Tensor:
    """(1, heads, T, T): position i attends to target[i] alone."""
    return torch.eye(len(target))[target].expand(1, heads, -1, -1)


def small(layers: int = 2, heads: int = 2) -> AttentionOnly:
    torch.manual_seed(0)
    return AttentionOnly(vocabulary=11, context=9, width=8, layers=layers, heads=heads).eval()


@pytest.mark.exercise("mechanistic.induction.prefix_matching_score")
def test_prefix_matching_is_the_mean_attention_to_what_followed() -> None:
    torch.manual_seed(0)
    pattern = torch.rand(3, 2, 11, 11).tril()
    pattern /= pattern.sum(-1, keepdim=True)
    for period in (2, 4, 7, 10):
        wanted = torch.zeros(2)
        for b in range(3):
            for i in range(period, 11):
                wanted += pattern[b, :, i, i - period + 1] / (3 * (11 - period))
        torch.testing.assert_close(induction.prefix_matching_score(pattern, period), wanted)


@pytest.mark.exercise("mechanistic.induction.prefix_matching_score")
def test_a_perfect_induction_head_has_score_1_and_its_neighbours_0() -> None:
    period, length = 4, 10
    for shift, wanted in ((1, 1.0), (0, 0.0), (2, 0.0)):
        looks_at = [max(0, i - period + shift) for i in range(length)]
        score = induction.prefix_matching_score(attention_of(looks_at, heads=3), period)
        assert score.tolist() == [wanted] * 3
    previous = attention_of([max(0, i - 1) for i in range(length)])
    assert induction.prefix_matching_score(previous, period).item() == 0
    assert induction.previous_token_score(previous).item() == 1


@pytest.mark.exercise("mechanistic.induction.prefix_matching_score")
@pytest.mark.parametrize("period", [0, 1, 6, 7])
def test_rows_that_repeat_nothing_have_no_score(period: int) -> None:
    with pytest.raises(ValueError):
        induction.prefix_matching_score(torch.rand(1, 1, 6, 6), period)


@pytest.mark.exercise("mechanistic.induction.k_composition")
def test_k_composition_is_the_product_of_the_two_circuits() -> None:
    torch.manual_seed(0)
    ov, qk = torch.randn(2, 5, 5), torch.randn(3, 5, 5)
    wanted = torch.zeros(2, 3)
    for h in range(2):
        for g in range(3):
            joined = qk[g] @ ov[h].T
            wanted[h, g] = (
                joined.square().sum().sqrt()
                / qk[g].square().sum().sqrt()
                / ov[h].square().sum().sqrt()
            )
    torch.testing.assert_close(induction.k_composition(ov, qk), wanted)


@pytest.mark.exercise("mechanistic.induction.k_composition")
def test_keys_that_read_what_is_written_compose_and_others_do_not() -> None:
    def one(row: int, column: int) -> torch.Tensor:
        matrix = torch.zeros(1, 6, 6)
        matrix[0, row, column] = 3.0
        return matrix

    writes_at_2 = one(0, 2)  # x W_OV is in dimension 2
    assert induction.k_composition(writes_at_2, one(4, 2)).item() == pytest.approx(
        1
    )  # a key reads it
    assert induction.k_composition(writes_at_2, one(2, 4)).item() == 0  # a query reads it
    assert induction.k_composition(writes_at_2, one(4, 0)).item() == 0
    nothing = induction.k_composition(torch.zeros(1, 6, 6), one(0, 2))
    assert nothing.item() == 0


def test_a_head_that_looks_back_a_fixed_distance_has_a_high_score_for_one_period_alone() -> None:
    settings = InductionSettings(vocabulary=12, context=20, shortest=3, longest=9, width=8, heads=2)
    job = Induction(settings, 0, torch.device("cpu"))
    assert job.periods == [6, 7, 9]
    rows = job.rows(2, TEST, 5)
    assert [(tuple(tokens.shape), p) for tokens, p in rows] == [
        ((2, 12), 6),
        ((2, 14), 7),
        ((2, 18), 9),
    ]
    for layer in job.model.layers:
        for weight in (layer.q, layer.k):
            weight.data.zero_()
    even = induction.scores_of(job.model.eval(), rows)  # attention is even
    wanted = sum(sum(1 / (i + 1) for i in range(p, 2 * p)) / p for p in (6, 7, 9)) / 3
    torch.testing.assert_close(even, torch.full((2, 2), wanted))
    fixed = [attention_of([max(0, i - 8) for i in range(2 * p)]) for p in job.periods]
    each = [
        induction.prefix_matching_score(a, p).item()
        for a, p in zip(fixed, job.periods, strict=True)
    ]
    assert each == [0, 0, 1]


def test_copying_score_is_that_of_all_eigenvalues() -> None:
    torch.manual_seed(0)
    embedding, unembedding = torch.randn(9, 4).double(), torch.randn(4, 9).double()
    ov = torch.randn(3, 4, 4).double()
    for h in range(3):
        values = torch.linalg.eigvals(embedding @ ov[h] @ unembedding)
        wanted = values.real.sum() / values.abs().sum()
        got = induction.copying_score(ov, embedding, unembedding)[h]
        torch.testing.assert_close(got, wanted)
    same = torch.linalg.pinv(unembedding @ embedding)
    assert induction.copying_score(same[None], embedding, unembedding).item() == pytest.approx(1)
    assert induction.copying_score(-same[None], embedding, unembedding).item() == pytest.approx(-1)


def test_rows_repeat_and_no_token_stands_twice_in_a_pattern() -> None:
    tokens, period = repeated(40, 20, 10, (3, 10), seed=(1, 2))
    assert set(period.tolist()) == set(range(3, 11))
    for row, p in zip(tokens.tolist(), period.tolist(), strict=True):
        assert len(set(row[:p])) == p
        assert all(row[i] == row[i % p] for i in range(20))
    again, _ = repeated(40, 20, 10, (3, 10), seed=(1, 2))
    other, _ = repeated(40, 20, 10, (3, 10), seed=(1, 3))
    assert torch.equal(tokens, again)
    assert not torch.equal(tokens, other)
    certain = is_repeat(period, 20)
    assert certain.shape == (40, 19)
    assert certain.sum(1).tolist() == [19 - p for p in period.tolist()]


def test_losses_are_parted_where_the_next_token_becomes_certain() -> None:
    tokens, period = repeated(2, 8, 6, (3, 3), seed=(0,))
    logits = torch.zeros(2, 8, 6)
    logits[:, 3:7] = 30 * nn.functional.one_hot(tokens[:, 4:], 6)[:, :].float()
    losses = induction.next_token_losses(logits, tokens)
    first, repeat = induction.first_and_repeat(losses, period)
    assert first.item() == pytest.approx(torch.tensor(6.0).log().item())
    assert repeat.item() == pytest.approx(0, abs=1e-6)
    assert torch.equal(induction.first_and_repeat(losses, 3)[0], first)


@pytest.mark.parametrize("layers", [1, 3])
def test_the_model_is_the_sum_that_it_says(layers: int) -> None:
    """By loops over heads and positions, from its matrices alone."""
    model = small(layers)
    tokens = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])
    x = model.embedding.weight[tokens]
    for block in model.layers:
        normed = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        placed, new = normed + model.positions[:5], x.clone()
        for ov, qk in zip(block.ov(), block.qk(), strict=True):
            for t in range(5):
                scores = torch.stack(
                    [
                        torch.einsum("bc,cd,bd->b", placed[:, t], qk, placed[:, s])
                        for s in range(t + 1)
                    ],
                    1,
                )
                weights = (scores / 4**0.5).softmax(1)
                new[:, t] += torch.einsum("bs,bsc,cd->bd", weights, normed[:, : t + 1], ov)
        x = new
    normed = x / (x.square().mean(-1, keepdim=True) + 1e-5).sqrt()
    torch.testing.assert_close(model(tokens), normed @ model.unembedding, rtol=1e-4, atol=1e-4)


def test_the_model_refuses_shapes_that_do_not_fit() -> None:
    with pytest.raises(ValueError, match="multiple of heads"):
        AttentionOnly(5, 4, 8, 2, 3)
    with pytest.raises(ValueError, match="at least one layer"):
        AttentionOnly(5, 4, 8, 0, 2)
    with pytest.raises(ValueError, match="10 tokens do not fit into a context of 9"):
        small()(torch.zeros(1, 10, dtype=torch.int64))


def test_hooks_read_and_change_and_are_gone_afterwards() -> None:
    model, tokens = small(), torch.tensor([[1, 2, 3, 4]])
    plain = model(tokens)
    out, cache = run_with_cache(model, tokens, ["blocks.0", "blocks.1.pattern"])
    assert torch.equal(out, plain)
    assert cache["blocks.1.pattern"].shape == (1, 2, 4, 4)
    torch.testing.assert_close(cache["blocks.1.pattern"].sum(-1), torch.ones(1, 2, 4))
    resumed = run_with_hooks(
        model, torch.zeros_like(tokens), {"blocks.0": lambda _: cache["blocks.0"]}
    )
    assert torch.equal(resumed, plain)
    assert not torch.equal(run_with_hooks(model, tokens, {"blocks.0": torch.zeros_like}), plain)
    assert torch.equal(model(tokens), plain)

    def fails(_: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("inside")

    with pytest.raises(RuntimeError, match="inside"):
        run_with_hooks(model, tokens, {"blocks.0": fails})
    assert torch.equal(model(tokens), plain)


def test_hooks_name_what_they_cannot_do() -> None:
    model, tokens = small(), torch.tensor([[1, 2]])
    with pytest.raises(ValueError, match=r"no activation 'block\.0'; did you mean blocks\.0\?"):
        run_with_cache(model, tokens, ["block.0"])
    with pytest.raises(ValueError, match="no activation ''"):
        run_with_cache(model, tokens, [""])
    with pytest.raises(ValueError, match=r"keep the shape \(1, 2, 8\)"):
        run_with_hooks(model, tokens, {"blocks.0": lambda x: x[:, :1]})
    model.blocks[1].train()
    with pytest.raises(ValueError, match="training mode"):
        run_with_hooks(model, tokens, {})


def test_an_ablated_head_says_the_same_everywhere() -> None:
    mixed = torch.randn(3, 2, 5, 4)
    kept = mixed.clone()
    ablated = induction.without_head(mixed, 1)
    assert torch.equal(mixed, kept)
    assert torch.equal(ablated[:, 0], mixed[:, 0])
    torch.testing.assert_close(ablated[:, 1], mixed[:, 1].mean((0, 1)).expand(3, 5, 4))
    model = small()
    tokens, period = repeated(4, 8, 11, (4, 4), seed=(0,))
    with torch.no_grad():
        model.layers[0].out[:4] = 0  # head 0.0 writes nothing
        plain = induction.first_and_repeat(
            induction.next_token_losses(model(tokens), tokens), period
        )[1]
    effect = induction.ablations(model, tokens, period)
    assert effect.shape == (2, 2)
    assert effect[0, 0].item() == pytest.approx(plain.item(), rel=1e-5)
    assert (effect.flatten()[1:] - plain).abs().min() > 1e-4


def test_the_norm_and_generators_are_functions_of_their_arguments() -> None:
    x = torch.randn(2, 7)
    torch.testing.assert_close(rms_norm(x).square().mean(-1), torch.ones(2), rtol=1e-3, atol=0)
    first, same, other = (generator_at(*s).initial_seed() for s in ((1, 2), (1, 2), (2, 1)))
    assert first == same != other
