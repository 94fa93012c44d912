"""Flamingo: what sees what, gates, rows of pictures and text, and answers."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from attention import MultiHeadAttention
from labkit import UsageError
from multimodal import scenes
from multimodal.flamingo import episodes, evaluate, model, report
from multimodal.flamingo.episodes import Episodes
from multimodal.flamingo.model import Flamingo
from multimodal.tokens import word_tokenizer
from pretraining import GPT, Shape

PICTURE = 7


# --- the resampler ---


@pytest.mark.exercise("flamingo.model.perceiver_attention")
@pytest.mark.parametrize(("rows", "latents", "states"), [(2, 3, 5), (1, 1, 4), (3, 4, 1)])
def test_latents_attend_to_states_and_to_each_other(rows: int, latents: int, states: int) -> None:
    """By the equation, with weights of one head written out."""
    torch.manual_seed(rows)
    layer = MultiHeadAttention(6, 1).double()
    x, media = torch.randn(rows, latents, 6).double(), torch.randn(rows, states, 6).double()
    before = x.clone(), media.clone()
    found = model.perceiver_attention(layer, x, media)
    assert found.shape == x.shape
    for b in range(rows):
        seen = torch.stack([*media[b], *x[b]])
        keys, values = layer.k(seen), layer.v(seen)
        for r in range(latents):
            scores = keys @ layer.q(x[b, r]) / 6**0.5
            expected = layer.out(scores.softmax(0) @ values)
            torch.testing.assert_close(found[b, r], expected)
    assert torch.equal(x, before[0])
    assert torch.equal(media, before[1])


@pytest.mark.exercise("flamingo.model.perceiver_attention")
def test_what_the_attention_is_given() -> None:
    seen: dict[str, Tensor] = {}

    class Watched(nn.Module):
        def forward(self, x: Tensor, context: Tensor) -> Tensor:
            seen.update(x=x, context=context)
            return 2 * x

    x, media = (torch.randn(2, n, 4, requires_grad=True) for n in (3, 5))
    found = model.perceiver_attention(Watched(), x, media)
    assert torch.equal(seen["x"], x)
    assert torch.equal(seen["context"], torch.cat([media, x], dim=1))
    assert torch.equal(found, 2 * x)  # the latents themselves are added by the caller
    seen["context"].sum().backward()
    assert x.grad is not None
    assert media.grad is not None
    assert found.requires_grad


# --- which picture a token sees ---


@pytest.mark.exercise("flamingo.model.media_mask")
def test_a_token_sees_the_last_picture_alone() -> None:
    tokens = torch.tensor([[1, PICTURE, 2, 3, PICTURE, 4], [PICTURE, PICTURE, 1, 1, 1, 1]])
    before = tokens.clone()
    found = model.media_mask(tokens, PICTURE, pictures=3, latents=2)
    assert found.shape == (2, 6, 6)
    assert found.dtype == torch.bool
    own = [[None, 0, 0, 0, 1, 1], [0, 1, 1, 1, 1, 1]]
    for row in range(2):
        for t in range(6):
            for column in range(6):
                assert found[row, t, column].item() == (column // 2 == own[row][t])
    assert torch.equal(tokens, before)


@pytest.mark.exercise("flamingo.model.media_mask")
def test_masks_of_other_shapes() -> None:
    assert not model.media_mask(torch.tensor([[1, 2]]), 5, 1, 3).any()
    assert model.media_mask(torch.tensor([[5]]), 5, 1, 3).tolist() == [[[True] * 3]]
    zero = model.media_mask(torch.tensor([[0, 3, 0]]), 0, 2, 1)
    assert zero.int().tolist() == [[[1, 0], [1, 0], [0, 1]]]
    meta = torch.empty(2, 4, dtype=torch.int64, device="meta")
    assert model.media_mask(meta, 5, 2, 3).device.type == "meta"


# --- gates ---


@pytest.mark.exercise("flamingo.model.gated_residual")
@pytest.mark.parametrize("gate", [-2.0, 0.0, 0.7, 30.0])
def test_the_gate_by_its_formula(gate: float) -> None:
    x, update = (torch.randn(2, 3, 4, dtype=torch.float64) for _ in range(2))
    sees = torch.tensor([[True, False, True], [False, False, True]])
    before = x.clone(), update.clone(), sees.clone()
    found = model.gated_residual(x, update, torch.tensor(gate, dtype=torch.float64), sees)
    for b in range(2):
        for t in range(3):
            expected = x[b, t] + np.tanh(gate) * update[b, t] if sees[b, t] else x[b, t]
            torch.testing.assert_close(found[b, t], expected)
    for now, then in zip((x, update, sees), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.exercise("flamingo.model.gated_residual")
def test_a_closed_gate_is_exact_and_can_open() -> None:
    x, update = torch.randn(1, 2, 3).requires_grad_(), torch.randn(1, 2, 3).requires_grad_()
    gate = torch.zeros((), requires_grad=True)
    found = model.gated_residual(x, update, gate, torch.tensor([[True, False]]))
    assert torch.equal(found, x)
    found.sum().backward()
    assert gate.grad is not None
    assert gate.grad.item() == pytest.approx(update[0, 0].sum().item(), rel=1e-5)
    assert x.grad is not None
    assert torch.equal(x.grad, torch.ones_like(x))
    open_gate = torch.tensor(1.0, dtype=torch.float64)
    inputs = [x.detach().double().requires_grad_(), update.detach().double().requires_grad_()]
    model.gated_residual(*inputs, open_gate, torch.tensor([[True, False]])).sum().backward()
    assert inputs[1].grad is not None
    assert inputs[1].grad[0, :, 0].tolist() == pytest.approx([np.tanh(1.0), 0])


@pytest.mark.exercise("flamingo.model.gated_residual")
def test_what_a_token_does_not_see_cannot_hurt_it() -> None:
    x = torch.ones(1, 2, 2)
    update = torch.tensor([[[1.0, 1.0], [float("nan"), float("inf")]]])
    found = model.gated_residual(x, update, torch.tensor(0.5), torch.tensor([[True, False]]))
    assert found[0, 1].tolist() == [1, 1]


# --- the whole model ---


def language(architecture: str = "gpt2", positions: int = 64, vocabulary: int = 30) -> GPT:
    torch.manual_seed(0)
    found = GPT(Shape(vocabulary, positions, 16, 2, 2), architecture)  # type: ignore[arg-type]
    with torch.no_grad():
        for parameter in found.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    return found.eval()


def opened(flamingo: Flamingo) -> Flamingo:
    with torch.no_grad():
        for layer in flamingo.gated:
            layer.gates += 0.8  # type: ignore[operator]
    return flamingo


TOKENS = torch.tensor([[1, PICTURE, 2, 3, PICTURE, 4], [PICTURE, 5, 6, PICTURE, 2, 3]])
STATES = torch.randn(2, 2, 5, 10, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("architecture", ["gpt2", "modern"])
def test_at_first_the_logits_are_exactly_the_language_models(architecture: str) -> None:
    base = language(architecture)
    flamingo = Flamingo(base, PICTURE, 10, 3, 1, 2)
    assert torch.equal(flamingo(TOKENS, STATES), base(TOKENS))
    asked = torch.zeros(2, 6, dtype=torch.bool)
    asked[:, 2:4] = True
    loss = model.answer_loss(flamingo, TOKENS, STATES, asked)
    assert torch.equal(loss, model.without_pictures(base, TOKENS, asked))
    logits = base(TOKENS).log_softmax(-1)
    chosen = [-logits[b, t - 1, TOKENS[b, t]] for b in range(2) for t in (2, 3)]
    assert loss.item() == pytest.approx(torch.stack(chosen).mean().item(), rel=1e-5)


def test_text_without_pictures_stays_the_language_models() -> None:
    base = language()
    flamingo = opened(Flamingo(base, PICTURE, 10, 3, 1, 2))
    plain = TOKENS.masked_fill(TOKENS == PICTURE, 9)
    assert torch.equal(flamingo(plain, STATES), base(plain))
    assert torch.equal(flamingo(TOKENS, STATES)[0, :1], base(TOKENS)[0, :1])
    assert not torch.allclose(flamingo(TOKENS, STATES)[0, 1], base(TOKENS)[0, 1])


def test_a_picture_reaches_later_tokens_and_no_earlier_ones() -> None:
    flamingo = opened(Flamingo(language(), PICTURE, 10, 3, 2, 2))
    before = flamingo(TOKENS, STATES)
    changed = STATES.clone()
    changed[0, 1] += 1
    after = flamingo(TOKENS, changed)
    assert torch.equal(after[1], before[1])
    assert torch.equal(after[0, :4], before[0, :4])
    assert not torch.allclose(after[0, 4], before[0, 4])
    one = flamingo(TOKENS[:1], STATES[:1])
    torch.testing.assert_close(one, before[:1])


def test_only_the_new_layers_are_trained() -> None:
    base = language()
    flamingo = Flamingo(base, PICTURE, 10, 3, 1, 2)
    names = {name.split(".")[0] for name, _ in flamingo.trained()}
    assert names == {"resampler", "gated"}
    flamingo.train()
    assert not base.training
    assert flamingo.gated.training
    asked = torch.ones(2, 6, dtype=torch.bool)
    asked[:, 0] = False
    model.answer_loss(flamingo, TOKENS, STATES, asked).backward()
    assert all(p.grad is None for p in base.parameters())
    assert flamingo.gated[0].gates.grad.abs().sum() > 0  # type: ignore[union-attr]


def test_rows_that_do_not_fit() -> None:
    flamingo = Flamingo(language(positions=6), PICTURE, 10, 3, 1, 2)
    with pytest.raises(ValueError, match="7 tokens do not fit into 6"):
        flamingo(torch.zeros(1, 7, dtype=torch.int64), STATES[:1])
    with pytest.raises(ValueError, match="more picture tokens than its 2 pictures"):
        flamingo(torch.full((1, 3), PICTURE), STATES[:1])


# --- rows ---


@pytest.fixture(scope="module")
def made() -> Episodes:
    found = scenes.draw(60, scenes.combinations("train"), 0.6, seed=0)
    texts = [text for captions in scenes.captions_of(found) for text in captions]
    tokenizer = word_tokenizer([*texts, "This is The colour is The shape is It is ."])
    return Episodes(found, tokenizer, len(tokenizer), 0, 3, 80)


def text_of(made: Episodes, tokens: list[int]) -> str:
    names = {i: t for t, i in word_vocabulary(made).items()}
    return " ".join(names[token] for token in tokens)


def word_vocabulary(made: Episodes) -> dict[str, int]:
    found = scenes.draw(60, scenes.combinations("train"), 0.6, seed=0)
    texts = [text for captions in scenes.captions_of(found) for text in captions]
    return word_tokenizer([*texts, "This is The colour is The shape is It is ."]).get_vocab()


@pytest.mark.parametrize("kind", episodes.KINDS)
def test_rows_ask_for_what_their_pictures_show(made: Episodes, kind: episodes.Kind) -> None:
    rows = made.rows([kind] * 20, np.random.default_rng(0))
    assert rows.tokens.shape == rows.chunk.shape
    captions = scenes.captions_of(made.scenes)
    for row, pictures, chunk in zip(*(part.tolist() for part in rows), strict=True):
        assert row.count(made.picture) == made.chunks
        asked = set()
        for place, scene in enumerate(pictures):
            answer = [token for token, c in zip(row, chunk, strict=True) if c == place]
            said = text_of(made, answer)
            colour, shape = scenes.name_of(int(made.scenes.first[scene])).split()
            if kind == "caption":
                assert said == f"{captions[scene][0]} ."
            else:
                assert made.scenes.relation[scene] == scenes.ALONE
                assert said in (f"{colour} .", f"{shape} .")
                begin = chunk.index(place)
                prompt = text_of(made, row[begin - 2 : begin])
                named = "colour" if said == f"{colour} ." else "shape"
                asked.add(named)
                assert prompt == ("it is" if kind == "few_shot" else f"{named} is")
        if kind == "few_shot":
            assert len(asked) == 1  # one row asks for one thing
    assert rows.asked.sum() == (rows.chunk >= 0).sum()


def test_a_batch_is_a_function_of_seed_and_step(made: Episodes) -> None:
    a, b, other = made.batch(6, 4, 1), made.batch(6, 4, 1), made.batch(6, 5, 1)
    assert all(torch.equal(x, y) for x, y in zip(a, b, strict=True))
    assert not torch.equal(a.pictures, other.pictures)


def test_rows_longer_than_the_context_are_refused(made: Episodes) -> None:
    tokenizer = word_tokenizer(["This is The colour is The shape is It is . a red circle"])
    with pytest.raises(UsageError, match="try chunks="):
        Episodes(made.scenes, tokenizer, 99, 0, 3, 20)


def test_an_answer_is_right_as_a_whole() -> None:
    rows = episodes.Rows(
        torch.tensor([[9, 1, 2, 9, 3, 4]]), torch.zeros(1, 2, dtype=torch.int64),
        torch.tensor([[-1, 0, 0, -1, 1, 1]]),
    )  # fmt: skip
    right = torch.tensor([[1, 2, 0, 3, 4]])
    assert evaluate.right_answers(right, rows, 2).tolist() == [[True, True]]
    half = torch.tensor([[1, 2, 0, 3, 5]])
    assert evaluate.right_answers(half, rows, 2).tolist() == [[True, False]]
    first = torch.tensor([[0, 2, 0, 3, 4]])
    assert evaluate.right_answers(first, rows, 2).tolist() == [[False, True]]


def test_writing_stops() -> None:
    base = language(positions=40)
    flamingo = opened(Flamingo(base, PICTURE, 10, 3, 1, 2))
    states = STATES[0, 0]
    first = int(flamingo(torch.tensor([[PICTURE, 1]]), states[None, None])[0, -1].argmax())
    assert report.write(flamingo, [PICTURE, 1], states, stop=first) == [PICTURE, 1, first]
    never = report.write(flamingo, [PICTURE, 1], states, stop=-1)
    assert len(never) == 2 + report.LONGEST
