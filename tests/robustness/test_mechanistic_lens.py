"""Lens, attribution and patching: sums that must be exact, and Hugging Face's hidden states."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from pretraining import GPT, Shape
from robustness.mechanistic import lens, patching
from robustness.mechanistic.hooks import run_with_cache, run_with_hooks
from robustness.mechanistic.model import AttentionOnly
from robustness.mechanistic.patterns import repeated


@pytest.fixture
def model() -> AttentionOnly:
    torch.manual_seed(1)
    return AttentionOnly(vocabulary=13, context=12, width=8, layers=2, heads=2).eval()


class Scaled(nn.Module):
    """A norm and an unembedding that can be told apart from every other."""

    def norm(self, x: torch.Tensor) -> torch.Tensor:
        return 3 * x + 1

    def logits(self, normed: torch.Tensor) -> torch.Tensor:
        return normed[..., :2].cumsum(-1)


@pytest.mark.exercise("mechanistic.lens.logit_lens")
def test_the_lens_norms_and_then_unembeds() -> None:
    streams = torch.randn(2, 3, 1, 4)
    kept = streams.clone()
    read = lens.logit_lens(Scaled(), streams)
    first = 3 * streams[..., 0] + 1
    wanted = torch.stack([first, first + 3 * streams[..., 1] + 1], -1)
    torch.testing.assert_close(read, wanted)
    assert torch.equal(streams, kept)


@pytest.mark.exercise("mechanistic.lens.logit_lens")
def test_after_the_last_layer_the_lens_is_the_model(model: AttentionOnly) -> None:
    tokens = torch.randint(13, (3, 7))
    streams = lens.streams_of(model, tokens)
    assert streams.shape == (3, 3, 7, 8)
    read = lens.logit_lens(model, streams)
    assert torch.equal(read[-1], model(tokens))
    assert not torch.allclose(read[0], read[-1])


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_streams_are_hugging_faces_hidden_states(architecture: str) -> None:
    from pretraining import to_huggingface  # slow to import

    torch.manual_seed(0)
    gpt = GPT(Shape(17, 10, 16, 3, 2), architecture).eval()  # type: ignore[arg-type]
    for parameter in gpt.parameters():
        parameter.data += 0.1 * torch.randn_like(parameter)  # no layer is the identity
    theirs = to_huggingface(gpt)
    tokens = torch.randint(17, (2, 9))
    with torch.no_grad():
        out = theirs(tokens, output_hidden_states=True)
    streams = lens.streams_of(gpt, tokens)
    assert len(out.hidden_states) == len(streams) == 4
    for ours, his in zip(streams[:-1], out.hidden_states[:-1], strict=True):
        torch.testing.assert_close(ours, his, rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(lens.logit_lens(gpt, streams)[-1], out.logits, rtol=1e-3, atol=1e-4)
    names, written = lens.components_of(gpt, tokens)
    assert names[:3] == ["embedding", "0 attention", "0 mlp"]
    torch.testing.assert_close(written.sum(0), streams[-1], rtol=1e-4, atol=1e-5)


def test_other_models_are_refused() -> None:
    with pytest.raises(TypeError, match="streams of a Linear"):
        lens.streams_of(nn.Linear(2, 2), torch.zeros(1, 2))


@pytest.mark.exercise("mechanistic.lens.direct_logit_attribution")
@pytest.mark.parametrize("centre", [False, True])
def test_attributions_are_each_components_share_of_the_normed_sum(centre: bool) -> None:
    torch.manual_seed(0)
    components, direction = torch.randn(4, 3, 6) + 1, torch.randn(3, 6)
    kept = components.clone(), direction.clone()
    got = lens.direct_logit_attribution(components, direction, centre, eps=0.5)
    assert got.shape == (4, 3)
    for n in range(3):
        x = components[:, n].sum(0)
        x = x - x.mean() if centre else x
        s = (sum(v * v for v in x) / 6 + 0.5) ** 0.5
        for k in range(4):
            c = components[k, n]
            c = c - c.mean() if centre else c
            assert got[k, n].item() == pytest.approx(((c @ direction[n]) / s).item(), rel=1e-4)
    assert torch.equal(components, kept[0])
    assert torch.equal(direction, kept[1])


@pytest.mark.exercise("mechanistic.lens.direct_logit_attribution")
def test_attributions_sum_to_the_output_of_layer_norm() -> None:
    torch.manual_seed(0)
    norm = nn.LayerNorm(6, eps=1e-3)
    nn.init.normal_(norm.weight)
    nn.init.normal_(norm.bias)
    components, direction = 2 * torch.randn(5, 1, 6), torch.randn(1, 6)
    added = lens.direct_logit_attribution(components, direction * norm.weight, True, 1e-3)
    wanted = (norm(components.sum(0)) * direction).sum(1) - direction @ norm.bias
    torch.testing.assert_close(added.sum(0), wanted)


@pytest.mark.exercise("mechanistic.lens.direct_logit_attribution")
def test_attributions_sum_to_the_models_logits(model: AttentionOnly) -> None:
    tokens = torch.randint(13, (5, 6))
    with torch.no_grad():
        logits = model(tokens)[:, -1]
        _, written = lens.components_of(model, tokens)
        assert written.shape == (5, 5, 6, 8)
        for token in (0, 7):
            direction = model.unembedding[:, token].expand(5, -1)
            added = lens.direct_logit_attribution(written[:, :, -1], direction)
            torch.testing.assert_close(added.sum(0), logits[:, token], rtol=1e-4, atol=1e-5)


@pytest.mark.exercise("mechanistic.patching.patch")
def test_only_the_positions_that_are_named_are_replaced() -> None:
    corrupt, clean = torch.zeros(2, 5, 3), torch.rand(2, 5, 3) + 1
    patched = patching.patch(corrupt, clean, torch.tensor([0, 3]))
    assert torch.equal(patched[:, [0, 3]], clean[:, [0, 3]])
    assert (patched[:, [1, 2, 4]] == 0).all()
    assert (corrupt == 0).all()
    assert clean.min() >= 1
    none = patching.patch(corrupt, clean, torch.tensor([], dtype=torch.int64))
    assert torch.equal(none, corrupt)
    assert none is not corrupt
    last = patching.patch(corrupt, clean, torch.tensor([4]))
    assert torch.equal(last[:, 4], clean[:, 4])
    assert (last[:, :4] == 0).all()


@pytest.mark.exercise("mechanistic.patching.patch")
def test_one_head_or_all_of_them_are_replaced() -> None:
    corrupt, clean = torch.zeros(2, 3, 5, 4), torch.rand(2, 3, 5, 4) + 1
    both = patching.patch(corrupt, clean, torch.tensor([1]))
    assert torch.equal(both[:, :, 1], clean[:, :, 1])
    assert (both[:, :, [0, 2, 3, 4]] == 0).all()
    for head in range(3):
        one = patching.patch(corrupt, clean, torch.tensor([1, 4]), head)
        assert torch.equal(one[:, head, [1, 4]], clean[:, head, [1, 4]])
        assert (one[:, head, [0, 2, 3]] == 0).all()
        assert (one[:, [h for h in range(3) if h != head]] == 0).all()
    assert (corrupt == 0).all()


@pytest.mark.exercise("mechanistic.patching.patch")
def test_activations_that_do_not_belong_together_are_refused() -> None:
    place = torch.tensor([0])
    with pytest.raises(ValueError):
        patching.patch(torch.zeros(2, 5, 3), torch.zeros(1, 5, 3), place)
    with pytest.raises(ValueError):
        patching.patch(torch.zeros(2, 5, 3), torch.zeros(2, 5, 3), place, head=0)


@pytest.mark.exercise("mechanistic.patching.restored")
def test_restored_is_0_for_the_corrupt_run_and_1_for_the_clean_one() -> None:
    torch.manual_seed(0)
    clean, corrupt, patched = (3 * torch.randn(4, 6) for _ in range(3))
    answer = torch.tensor([5, 0, 2, 2])
    assert patching.restored(corrupt, clean, corrupt, answer).item() == 0
    assert patching.restored(clean, clean, corrupt, answer).item() == 1
    p = []
    for logits in (patched, clean, corrupt):
        chances = [logits[b].exp()[answer[b]] / logits[b].exp().sum() for b in range(4)]
        p.append(float(sum(chances)) / 4)
    wanted = (p[0] - p[2]) / (p[1] - p[2])
    got = patching.restored(patched, clean, corrupt, answer)
    assert got.shape == ()
    assert got.item() == pytest.approx(wanted, rel=1e-4)
    with pytest.raises(ValueError):
        patching.restored(patched, clean, clean, answer)


@pytest.mark.exercise("mechanistic.patching.restored")
def test_restored_stands_large_logits_and_one_row() -> None:
    clean, corrupt = torch.tensor([[900.0, 0.0]]), torch.tensor([[0.0, 900.0]])
    half = torch.tensor([[0.0, 0.0]])
    assert patching.restored(half, clean, corrupt, torch.tensor([0])).item() == pytest.approx(0.5)


def test_the_question_differs_in_one_place_before_its_answer() -> None:
    tokens, _ = repeated(6, 10, 9, (5, 5), seed=(0,))
    asked = patching.question(tokens, 5, 9)
    last = asked.clean[:, -1]
    assert torch.equal(asked.clean, tokens[:, : asked.clean.shape[1]])
    assert torch.equal(last, asked.clean[:, asked.source - 1])  # where the last token stood before
    assert torch.equal(asked.answer, asked.clean[:, asked.source])
    assert torch.equal(asked.answer, tokens[:, asked.clean.shape[1]])  # what comes next
    changed = asked.clean != asked.corrupt
    assert changed.nonzero()[:, 1].tolist() == [asked.source - 1] * 6
    for row, new in zip(tokens, asked.corrupt[:, asked.source - 1], strict=True):
        assert new not in row
    for period in (6, 1):
        with pytest.raises(ValueError, match="twice"):
            patching.question(tokens, period, 9)
    with pytest.raises(ValueError, match="no token is left"):
        patching.question(tokens, 5, 5)


def test_patching_all_restores_all_and_nothing_nothing(model: AttentionOnly) -> None:
    tokens, _ = repeated(4, 12, 13, (6, 6), seed=(0,))
    asked = patching.question(tokens, 6, 13)
    length = asked.clean.shape[1]
    clean, cache = run_with_cache(model, asked.clean, ["embedding", "blocks.0.mixed"])
    corrupt = run_with_hooks(model, asked.corrupt, {})[:, -1]

    def share(name: str, positions: list[int]) -> float:
        place = torch.tensor(positions, dtype=torch.int64)
        logits = patching.patched_logits(model, asked, cache, name, place)
        return patching.restored(logits, clean[:, -1], corrupt, asked.answer).item()

    assert share("embedding", list(range(length))) == 1
    assert share("embedding", [asked.source - 1]) == 1  # the only place that differs
    assert share("embedding", []) == 0
    assert share("blocks.0.mixed", list(range(asked.source - 1))) == pytest.approx(0, abs=1e-4)
    found = patching.restoration_map(model, asked)
    assert found.shape == (2, 2, length)
    assert (found[:, :, : asked.source - 1] == 0).all()  # causal: nothing differs before
    assert (found[1, :, :-1] == 0).all()  # the last layer's heads write elsewhere in vain
