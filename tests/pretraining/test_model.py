"""The network: causal to the last bit, the same with and without its cache, initialised as said."""

import math
from typing import Any

import pytest
import torch

from attention import rotary, rotary_tables
from pretraining import GPT, Shape
from pretraining.model import Architecture, initial_std, rotate

ARCHITECTURES: list[Architecture] = ["gpt2", "modern"]
SHAPE = Shape(vocabulary=11, context=16, width=16, layers=2, heads=2)


def random_model(architecture: Architecture, make: Any = GPT, **settings: object) -> GPT:
    """A model none of whose weights is 0: a fresh `modern` one writes nothing into its stream."""
    torch.manual_seed(0)
    model: GPT = make(SHAPE, architecture, **settings).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return model


def moved(model: GPT, position: int) -> list[bool]:
    """Which logits move when the token at `position` changes."""
    tokens = torch.arange(8)[None] % 11
    changed = tokens.clone()
    changed[0, position] += 1
    with torch.no_grad():
        return (model(tokens) != model(changed)).any(dim=-1)[0].tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_no_position_sees_a_later_token(architecture: Architecture) -> None:
    assert moved(random_model(architecture), 5) == [False] * 5 + [True] * 3


def test_broken_mask_sees_exactly_one_token_more(gpt_with_broken_mask: Any) -> None:
    """A layer looks one ahead, so two layers look two ahead."""
    assert moved(random_model("gpt2", gpt_with_broken_mask), 5) == [False] * 3 + [True] * 5


def test_without_causality_all_see_all() -> None:
    assert moved(random_model("gpt2", causal=False), 5) == [True] * 8


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("pieces", [(1,) * 8, (3, 5), (2, 1, 5)])
def test_in_pieces_with_the_cache_as_in_one(
    architecture: Architecture, pieces: tuple[int, ...]
) -> None:
    model = random_model(architecture)
    tokens = torch.randint(11, (3, 8), generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        whole, caches = model(tokens), model.new_caches(3, 8)
        parts = torch.cat([model(part, caches) for part in tokens.split(pieces, dim=1)], dim=1)
    torch.testing.assert_close(parts, whole, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_gradients_reach_every_parameter(architecture: Architecture) -> None:
    model = random_model(architecture).train()
    model(torch.randint(11, (2, 16))).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name


def test_more_tokens_than_the_context_are_refused() -> None:
    model = random_model("gpt2")
    with pytest.raises(ValueError, match="17 tokens do not fit into a context of 16"):
        model(torch.zeros(1, 17, dtype=torch.int64))
    caches = model.new_caches(1, 32)
    model(torch.zeros(1, 16, dtype=torch.int64), caches)
    with pytest.raises(ValueError, match="17 tokens"):
        model(torch.zeros(1, 1, dtype=torch.int64), caches)


@pytest.mark.parametrize("numbers", [(0, 8, 8, 1, 1), (5, 8, 9, 1, 3), (5, 8, 6, 1, 4)])
def test_shapes_that_cannot_be_are_refused(numbers: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="must be"):
        Shape(*numbers)


def test_rotation_is_week_fives_in_another_order() -> None:
    """Neighbours here, halves there: put the even dimensions first and they are the same."""
    torch.manual_seed(0)
    x = torch.randn(2, 5, 3, 8)
    cos, sin = rotary_tables(torch.arange(5), 8)
    ours = rotate(x, torch.complex(cos, sin)[:, None])
    order = [0, 2, 4, 6, 1, 3, 5, 7]
    theirs = rotary(x[..., order].transpose(1, 2), cos, sin).transpose(1, 2)
    torch.testing.assert_close(ours[..., order], theirs)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_untrained_model_expects_everything_equally(architecture: Architecture) -> None:
    torch.manual_seed(0)
    model = GPT(Shape(65, 32, 64, 4, 4), architecture)
    tokens = torch.randint(65, (4, 32))
    loss = torch.nn.functional.cross_entropy(model(tokens).mT, tokens.roll(-1, 1))
    assert float(loss) == pytest.approx(math.log(65), abs=0.1)


@pytest.mark.exercise("model.initial_std")
def test_gpt2_initialises_as_hugging_face_does() -> None:
    from transformers import GPT2Config, GPT2LMHeadModel

    torch.manual_seed(0)
    theirs = GPT2LMHeadModel(
        GPT2Config(vocab_size=500, n_positions=64, n_embd=128, n_layer=8, n_head=4)
    ).state_dict()
    for kind, name in (
        ("inside", "h.3.attn.c_attn"), ("residual", "h.3.attn.c_proj"), ("inside", "h.7.mlp.c_fc"),
        ("residual", "h.0.mlp.c_proj"), ("embedding", "wte"), ("head", "wte"),
    ):  # fmt: skip
        expected = float(theirs[f"transformer.{name}.weight"].std())
        assert initial_std(kind, "gpt2", 128, 8) == pytest.approx(expected, rel=0.05), name


@pytest.mark.exercise("model.initial_std")
@pytest.mark.parametrize(("width", "layers"), [(768, 12), (16, 1), (100, 2), (25, 48)])
def test_standard_deviations_as_they_are_published(width: int, layers: int) -> None:
    for kind in ("embedding", "inside", "head"):
        assert initial_std(kind, "gpt2", width, layers) == 0.02
    # The variance of 2 · layers sums of the residual stream is that of one.
    total = 2 * layers * initial_std("residual", "gpt2", width, layers) ** 2
    assert total == pytest.approx(0.02**2, rel=1e-12)
    assert initial_std("embedding", "modern", width, layers) == 1
    assert initial_std("residual", "modern", width, layers) == 0
    assert initial_std("head", "modern", width, layers) == 0.001
    inside = initial_std("inside", "modern", width, layers)
    assert width * inside**2 == pytest.approx(1, rel=1e-12)


@pytest.mark.exercise("model.initial_std")
def test_modern_layers_keep_unit_variance_and_begin_as_the_identity() -> None:
    x = torch.randn(2000, 96, generator=torch.Generator().manual_seed(0))
    std = initial_std("inside", "modern", 96, 6)
    w = std * torch.randn(96, 384, generator=torch.Generator().manual_seed(1))
    assert float((x @ w).std()) == pytest.approx(1, rel=0.02)
    assert initial_std("residual", "modern", 96, 6) == 0
    assert initial_std("embedding", "modern", 96, 6) == 1
    assert initial_std("head", "modern", 96, 6) == 0.001


def test_modern_blocks_are_the_identity_at_first() -> None:
    torch.manual_seed(0)
    model = GPT(SHAPE, "modern")
    x = torch.randn(2, 5, 16)
    assert torch.equal(model.layers[0](x, model.turn[:5], True, None), x)


def test_parameters_of_gpt2() -> None:
    """124,439,808 is what Hugging Face counts for gpt2; 12 · 12 · 768² are the matrices inside."""
    with torch.device("meta"):
        model = GPT(Shape(50257, 1024, 768, 12, 12))
    assert model.count_parameters() == 124_439_808
    assert model.count_parameters(embeddings=False) == pytest.approx(12 * 12 * 768**2, rel=2e-3)
