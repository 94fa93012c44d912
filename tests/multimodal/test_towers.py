"""Pooling, both towers, and the published model: the same logits as transformers'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from labkit import UsageError
from multimodal import huggingface, towers, zero_shot
from multimodal.towers import CLIP, CLIPShape, TowerShape
from tests.multimodal.published import make_folder

TOWER = TowerShape(16, 2, 2, 32)
SHAPE = CLIPShape(TOWER, TOWER, 16, 4, 30, 9, 29, 8, "conv")


# --- pooling ---


@pytest.mark.exercise("towers.pool_end")
def test_the_state_at_the_first_end_is_taken() -> None:
    tokens = torch.tensor([[4, 7, 2, 7, 7], [7, 4, 4, 4, 9], [1, 2, 3, 4, 7]])
    states = torch.arange(30, dtype=torch.float64).view(3, 5, 2)
    found = towers.pool_end(states, tokens, 7)
    expected = [states[0, 1], states[1, 0], states[2, 4]]  # 9 is a larger number than END
    assert torch.equal(found, torch.stack(expected))
    assert found.dtype == torch.float64


@pytest.mark.exercise("towers.pool_end")
def test_pooling_moves_one_state_of_each_row_and_changes_nothing() -> None:
    tokens = torch.tensor([[3, 0, 5], [0, 0, 0]])
    states = torch.randn(2, 3, 4).requires_grad_()
    before = tokens.clone(), states.detach().clone()
    towers.pool_end(states, tokens, 0).sum().backward()
    assert states.grad is not None
    assert states.grad[:, :, 0].tolist() == [[0, 1, 0], [1, 0, 0]]
    assert torch.equal(tokens, before[0])
    assert torch.equal(states.detach(), before[1])
    one = torch.randn(1, 1, 3)
    assert torch.equal(towers.pool_end(one, torch.tensor([[8]]), 8), one[:, 0])


@pytest.mark.exercise("towers.pool_end")
def test_a_row_without_end_is_refused() -> None:
    with pytest.raises(ValueError, match="no END"):
        towers.pool_end(torch.zeros(2, 3, 4), torch.tensor([[1, 5, 2], [1, 2, 3]]), 5)


# --- the towers ---


def a_model(**changed: Any) -> CLIP:
    torch.manual_seed(0)
    return CLIP(CLIPShape(**{**vars(SHAPE), **changed})).eval()


def test_what_stands_behind_end_changes_nothing() -> None:
    model = a_model()
    short = torch.tensor([[3, 4, 29], [5, 29, 29]])
    long = torch.tensor([[3, 4, 29, 1, 2], [5, 29, 7, 7, 7]])
    torch.testing.assert_close(model.encode_texts(short), model.encode_texts(long))
    other = model.encode_texts(torch.tensor([[4, 3, 29]]))
    assert not torch.allclose(other, model.encode_texts(short)[:1])  # order matters


@pytest.mark.parametrize("stem", ["conv", "patch"])
def test_a_picture_is_seen_alone_and_everywhere(stem: str) -> None:
    model = a_model(stem=stem)
    pictures = torch.randint(0, 256, (3, 3, 16, 16), dtype=torch.uint8)
    assert model.image.states(pictures).shape == (3, 1 + 16, 16)
    whole = model.encode_images(pictures)
    torch.testing.assert_close(whole[1:2], model.encode_images(pictures[1:2]))
    for corner in (0, 15):
        changed = pictures[:1].clone()
        changed[..., corner, corner] ^= 255
        assert not torch.allclose(model.encode_images(changed), whole[:1])


def test_bytes_are_normalised_by_channel() -> None:
    model = a_model(mean=(0.1, 0.2, 0.3), std=(0.5, 0.25, 0.125))
    seen: list[Tensor] = []
    model.image.stem.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    picture = torch.full((1, 3, 16, 16), 51, dtype=torch.uint8)  # 0.2
    model.encode_images(picture)
    expected = torch.tensor([0.2, 0.0, -0.8]).view(3, 1, 1).expand(3, 16, 16)
    torch.testing.assert_close(seen[0][0], expected)


def test_logits_are_cosines_times_the_scale() -> None:
    model = a_model()
    pictures = torch.randint(0, 256, (2, 3, 16, 16), dtype=torch.uint8)
    tokens = torch.tensor([[1, 29], [2, 29], [3, 29]])
    logits = model(pictures, tokens)
    assert logits.shape == (2, 3)
    cosine = nn.functional.cosine_similarity(
        model.encode_images(pictures)[1], model.encode_texts(tokens)[2], dim=0
    )
    assert logits[1, 2].item() == pytest.approx(cosine.item() / 0.07, rel=1e-4)


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"side": 15}, "do not fill"),
        ({"patch": 1}, "patch must be"),
        ({"text": TowerShape(15, 1, 2, 30)}, "no multiple of 2 heads"),
    ],
)
def test_sizes_that_do_not_fit(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        CLIPShape(**{**vars(SHAPE), **changed})


def test_too_many_tokens() -> None:
    with pytest.raises(ValueError, match="10 tokens do not fit into 9"):
        a_model().encode_texts(torch.full((1, 10), 29))


# --- published models ---


TOKENS = torch.tensor([[2, 5, 39, 39, 39], [7, 8, 9, 10, 39], [39, 1, 1, 1, 1]])


@pytest.mark.parametrize(("act", "eos"), [("quick_gelu", 39), ("gelu", 39), ("quick_gelu", 2)])
def test_the_logits_are_those_of_transformers(tmp_path: Path, act: str, eos: int) -> None:
    """With either activation, and with the older way to say what ends a text."""
    theirs = make_folder(tmp_path, act, eos)
    ours, tokenizer = huggingface.load_published(str(tmp_path))
    assert tokenizer.eos_token_id == ours.shape.end == 39
    pictures = torch.randint(0, 256, (2, 3, 24, 24), dtype=torch.uint8)
    mean, std = torch.tensor([0.4, 0.5, 0.6]), torch.tensor([0.2, 0.3, 0.4])
    pixels = (pictures / 255 - mean.view(3, 1, 1)) / std.view(3, 1, 1)
    with torch.no_grad():
        expected = theirs(input_ids=TOKENS, pixel_values=pixels).logits_per_image
        found = ours(pictures, TOKENS)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_the_wrong_activation_would_be_noticed(tmp_path: Path) -> None:
    theirs = make_folder(tmp_path)
    theirs.config.vision_config.hidden_act = "gelu"
    ours = huggingface.from_huggingface(theirs)
    right, _ = huggingface.load_published(str(tmp_path))
    pictures = torch.randint(0, 256, (1, 3, 24, 24), dtype=torch.uint8)
    assert not torch.allclose(
        ours.encode_images(pictures), right.encode_images(pictures), rtol=1e-3
    )


def test_folders_that_hold_no_clip_are_refused(tmp_path: Path) -> None:
    from transformers import CLIPConfig

    with pytest.raises(UsageError, match="neither a folder nor a model"):
        huggingface.load_published("no/such-model")
    with pytest.raises(UsageError, match="holds no CLIP model"):
        huggingface.load_published(str(tmp_path))
    make_folder(tmp_path)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(UsageError, match="tokenizer"):
        huggingface.load_published(str(tmp_path))
    weights = tmp_path / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-9])
    with pytest.raises(UsageError, match="holds no CLIP model that can be opened"):
        huggingface.load_published(str(tmp_path))
    config = CLIPConfig(vision_config={"hidden_act": "relu"})
    with pytest.raises(ValueError, match="activation relu"):
        huggingface.shape_of(config)


# --- zero-shot ---


@pytest.mark.exercise("zero_shot.class_embeddings")
def test_a_class_is_the_mean_of_its_prompts_at_unit_length() -> None:
    prompts = torch.tensor([[[3.0, 0.0], [0.0, 0.1]], [[0.0, -2.0], [0.0, -5.0]]]).double()
    before = prompts.clone()
    found = zero_shot.class_embeddings(prompts)
    half = 0.5**0.5
    expected = torch.tensor([[half, half], [0.0, -1.0]]).double()
    torch.testing.assert_close(found, expected)
    assert torch.equal(prompts, before)


@pytest.mark.exercise("zero_shot.class_embeddings")
@pytest.mark.parametrize(("k", "p", "d"), [(3, 5, 4), (1, 1, 2), (4, 2, 7)])
def test_class_embeddings_by_loops(k: int, p: int, d: int) -> None:
    g = torch.Generator().manual_seed(k)
    prompts = torch.randn(k, p, d, generator=g, dtype=torch.float64) * 4
    found = zero_shot.class_embeddings(prompts)
    assert found.shape == (k, d)
    for i in range(k):
        total = sum((row / row.dot(row).sqrt() for row in prompts[i]), torch.zeros(d).double())
        torch.testing.assert_close(found[i], total / total.dot(total).sqrt())


@pytest.mark.exercise("zero_shot.class_embeddings")
def test_class_embeddings_can_be_learned_through() -> None:
    prompts = torch.randn(2, 3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(zero_shot.class_embeddings, [prompts])


def test_the_nearest_class_by_cosine() -> None:
    classes = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    image = torch.tensor([[5.0, 6.0], [0.2, 0.1], [-1.0, -2.0]])
    assert zero_shot.classify(image, classes).tolist() == [1, 0, 0]
