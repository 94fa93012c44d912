"""LoRA by hand against peft: outputs, gradients, merged weights and files."""

import copy
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

from alignment import adapter, lora
from alignment.library import add_peft
from alignment.lora import LoRALayer, add_lora, lora_layers, merge, trainable
from alignment.model import merged, trained_share
from labkit import UsageError

TARGETS = ["c_attn", "c_proj", "lm_head"]  # the head is the embedding: one weight, two uses
TOKENS = torch.tensor([[3, 1, 4, 1, 5], [9, 2, 6, 5, 3]])


def both(make_gpt2: Callable[..., Any], rank: int = 3, alpha: float = 12.0) -> tuple[Any, Any]:
    """One base with our LoRA and with peft's: equal A and B, B not zero."""
    base = make_gpt2()
    ours, theirs = copy.deepcopy(base), copy.deepcopy(base)
    add_lora(ours, TARGETS, rank, alpha)
    theirs = add_peft(theirs, TARGETS, rank, alpha, 0.0).eval()
    torch.manual_seed(1)
    for name, layer in lora_layers(ours).items():
        nn.init.normal_(layer.b, std=0.2)
        twin = theirs.get_base_model().get_submodule(name)
        with torch.no_grad():
            twin.lora_A["default"].weight.copy_(layer.a)
            twin.lora_B["default"].weight.copy_(layer.b)
    return ours, theirs


def linear_pair(conv1d: bool) -> tuple[nn.Module, torch.Tensor, torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(0)
    base = Conv1D(7, 5) if conv1d else nn.Linear(5, 7)
    a, b = torch.randn(2, 5, generator=g), torch.randn(7, 2, generator=g)
    return base, a, b, torch.randn(4, 3, 5, generator=g)


@pytest.mark.exercise("lora.update")
def test_update_by_the_formula() -> None:
    _, a, b, x = linear_pair(conv1d=False)
    expected = 0.5 * torch.einsum("nti,ri,or->nto", x, a, b)
    torch.testing.assert_close(lora.update(x, a, b, 0.5), expected)


@pytest.mark.exercise("lora.update")
def test_update_of_a_square_layer() -> None:
    """in = out = r: here a transpose too many is no error of shape."""
    g = torch.Generator().manual_seed(0)
    a, b, x = (torch.randn(4, 4, generator=g) for _ in range(3))
    expected = torch.stack([3.0 * b @ (a @ row) for row in x])
    torch.testing.assert_close(lora.update(x, a, b, 3.0), expected)


@pytest.mark.exercise("lora.update")
@pytest.mark.parametrize("shape", [(5,), (1, 5), (0, 5), (2, 3, 4, 5)])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_update_of_any_shape_and_type_changes_nothing(
    shape: tuple[int, ...], dtype: torch.dtype
) -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(1, 5, generator=g).to(dtype), torch.randn(7, 1, generator=g).to(dtype)
    x = torch.randn(shape, generator=g).to(dtype)
    kept = x.clone(), a.clone(), b.clone()
    found = lora.update(x, a, b, -0.5)
    assert found.dtype == dtype
    expected = -0.5 * torch.einsum("...i,ri,or->...o", *(v.double() for v in kept))
    rough = 0.05 if dtype == torch.bfloat16 else 1e-12
    torch.testing.assert_close(found.double(), expected, rtol=rough, atol=rough)
    assert all(torch.equal(now, before) for now, before in zip((x, a, b), kept, strict=True))


@pytest.mark.exercise("lora.update")
def test_update_has_a_gradient_for_all_three() -> None:
    g = torch.Generator().manual_seed(0)
    a, b, x = (torch.randn(shape, generator=g) for shape in ((2, 5), (7, 2), (4, 5)))
    results = []
    for function in (
        lambda: lora.update(x, a, b, 3.0),
        lambda: 3.0 * torch.einsum("ni,ri,or->no", x, a, b),
    ):
        leaves = [v.requires_grad_() for v in (x, a, b)]
        results.append(torch.autograd.grad(function().square().sum(), leaves))
    for ours, expected in zip(*results, strict=True):
        torch.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.exercise("lora.delta_weight")
@pytest.mark.parametrize("conv1d", [False, True])
def test_delta_weight_is_differentiable_in_a_and_b(conv1d: bool) -> None:
    a, b = torch.randn(2, 3, dtype=torch.float64), torch.randn(4, 2, dtype=torch.float64)
    inputs = [a.requires_grad_(), b.requires_grad_()]
    assert torch.autograd.gradcheck(lambda a, b: lora.delta_weight(a, b, 1.5, conv1d), inputs)


class Largest(TorchDispatchMode):
    """Remembers how many numbers the largest tensor has that is made inside."""

    size = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, torch.Tensor):
            self.size = max(self.size, out.numel())
        return out


@pytest.mark.exercise("lora.update")
def test_the_product_of_b_and_a_is_never_formed() -> None:
    """It would have 10^10 numbers here, and x, A, B and the output 10^5 times a few."""
    x, a, b = (torch.empty(s, 10**5, device="meta") for s in (3, 2, 2))
    with Largest() as largest:
        out = lora.update(x, a, b.T, 0.5)
    assert out.shape == (3, 10**5)
    assert largest.size <= 10**6


@pytest.mark.exercise("lora.delta_weight")
@pytest.mark.parametrize("conv1d", [False, True])
@pytest.mark.parametrize("rank", [1, 3])
@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16])
def test_delta_weight_by_a_loop_over_its_entries(
    conv1d: bool, rank: int, dtype: torch.dtype
) -> None:
    g = torch.Generator().manual_seed(0)
    a, b = torch.randn(rank, 4, generator=g).to(dtype), torch.randn(2, rank, generator=g).to(dtype)
    kept = a.clone(), b.clone()
    found = lora.delta_weight(a, b, -1.5, conv1d)
    assert found.dtype == dtype
    assert found.shape == ((4, 2) if conv1d else (2, 4))
    for o in range(2):
        for i in range(4):
            entry = -1.5 * sum(b[o, r].item() * a[r, i].item() for r in range(rank))
            value = found[i, o] if conv1d else found[o, i]
            assert value.item() == pytest.approx(entry, rel=0.03, abs=0.03)
    assert torch.equal(a, kept[0])
    assert torch.equal(b, kept[1])


@pytest.mark.exercise("lora.delta_weight")
@pytest.mark.parametrize("conv1d", [False, True])
@pytest.mark.parametrize("square", [False, True])
def test_delta_weight_does_what_the_update_does(conv1d: bool, square: bool) -> None:
    """A layer that has nothing but the update as its weight, applied by the library's own code."""
    g = torch.Generator().manual_seed(0)
    out = 5 if square else 7
    a, b = torch.randn(2, 5, generator=g), torch.randn(out, 2, generator=g)
    x = torch.randn(4, 5, generator=g)
    layer = Conv1D(out, 5) if conv1d else nn.Linear(5, out)
    with torch.no_grad():
        layer.weight.copy_(lora.delta_weight(a, b, 2.5, conv1d))
        layer.bias.zero_()
    torch.testing.assert_close(layer(x), 2.5 * torch.einsum("ni,ri,or->no", x, a, b))


@pytest.mark.parametrize("conv1d", [False, True])
def test_a_layer_merged_is_the_layer_unmerged(conv1d: bool) -> None:
    base, _, b, x = linear_pair(conv1d)
    layer = LoRALayer(base, rank=2, scale=1.5)
    assert torch.equal(layer(x), base(x)), "B is zero at first"
    with torch.no_grad():
        layer.b.copy_(b)
        before = layer(x)
        torch.testing.assert_close(layer.merged()(x), before)
        assert not torch.allclose(base(x), before * 2)


def test_outputs_and_gradients_are_pefts(make_gpt2: Callable[..., Any]) -> None:
    ours, theirs = both(make_gpt2)
    results = []
    for model in (ours, theirs):
        logits = model(TOKENS).logits
        named = trainable(model)
        grads = torch.autograd.grad(logits.square().mean(), list(named.values()))
        results.append((logits.detach(), dict(zip(named, grads, strict=True))))
    torch.testing.assert_close(results[0][0], results[1][0], atol=1e-5, rtol=1e-5)
    assert len(results[0][1]) == len(results[1][1]) == 2 * len(lora_layers(ours))
    for name in lora_layers(ours):
        for mine, letter in (("a", "A"), ("b", "B")):
            torch.testing.assert_close(
                results[0][1][f"{name}.{mine}"],
                results[1][1][f"base_model.model.{name}.lora_{letter}.default.weight"],
                atol=1e-6,
                rtol=1e-4,
            )


def test_merged_weights_are_pefts_and_logits_stay(make_gpt2: Callable[..., Any]) -> None:
    ours, theirs = both(make_gpt2)
    with torch.no_grad():
        before = ours(TOKENS).logits
        merge(ours)
        torch.testing.assert_close(ours(TOKENS).logits, before, atol=1e-5, rtol=1e-5)
    expected = merged(theirs).state_dict()
    found = ours.state_dict()
    assert found.keys() == expected.keys(), "nothing of LoRA is left"
    for name, value in found.items():
        torch.testing.assert_close(value, expected[name], atol=1e-6, rtol=1e-5)


def test_merging_an_updated_head_leaves_the_embedding_alone(
    make_gpt2: Callable[..., Any], tmp_path: Path
) -> None:
    """Head and embedding share a weight until then; peft, left to itself, changes both."""
    ours, theirs = both(make_gpt2)
    assert ours.lm_head.base.weight is ours.transformer.wte.weight
    with torch.no_grad():
        before, embedding = ours(TOKENS).logits, ours.transformer.wte.weight.clone()
        assert not torch.allclose(
            copy.deepcopy(theirs).merge_and_unload()(TOKENS).logits, before, atol=1e-2
        )
        for model in (merged(ours), merged(theirs)):
            assert torch.equal(model.transformer.wte.weight, embedding)
            model.save_pretrained(tmp_path)
            again = AutoModelForCausalLM.from_pretrained(tmp_path).eval()
            torch.testing.assert_close(again(TOKENS).logits, before, atol=1e-5, rtol=1e-5)


def test_without_an_update_of_the_head_the_two_stay_one(make_gpt2: Callable[..., Any]) -> None:
    model = make_gpt2()
    add_lora(model, ["c_attn"], 2, 4.0)
    found = merged(model)
    assert found.lm_head.weight is found.transformer.wte.weight
    assert found.config.tie_word_embeddings


def test_merging_with_another_scale_is_another_model(
    make_gpt2: Callable[..., Any],
    planted: Callable[[str], ModuleType],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """broken_merge: 12 instead of 12 / 3."""
    wrong = planted("lora.LoRALayer.merged: merged with alpha instead of alpha / rank")
    ours, _ = both(make_gpt2, rank=3, alpha=12.0)
    with torch.no_grad():
        before = ours(TOKENS).logits
        with monkeypatch.context() as patch:
            patch.setattr(LoRALayer, "merged", wrong.LoRALayer.merged)
            assert not torch.allclose(merge(copy.deepcopy(ours))(TOKENS).logits, before)
        torch.testing.assert_close(merge(ours)(TOKENS).logits, before)


def test_it_begins_as_the_base_and_only_the_update_is_trained(
    make_gpt2: Callable[..., Any],
) -> None:
    base = make_gpt2()
    model = copy.deepcopy(base)
    names = add_lora(model, TARGETS, 2, 4.0)
    assert len(names) == 7  # c_attn, c_proj of attention and c_proj of the MLP, twice; the head
    assert torch.equal(model(TOKENS).logits, base(TOKENS).logits)
    model(TOKENS).logits.sum().backward()
    graded = {name for name, p in model.named_parameters() if p.grad is not None}
    assert graded == set(trainable(model))
    assert graded == {f"{name}.{letter}" for name in names for letter in "ab"}
    trained = sum(p.numel() for p in trainable(model).values())
    everything = sum(p.numel() for p in base.parameters())
    assert trained_share(model) == pytest.approx(100 * trained / everything)
    assert trained_share(base) == 100


def test_both_kinds_begin_with_the_same_numbers(make_gpt2: Callable[..., Any]) -> None:
    generators = [torch.Generator().manual_seed(3) for _ in range(2)]
    ours = make_gpt2()
    add_lora(ours, TARGETS, 2, 4.0, generator=generators[0])
    theirs = add_peft(make_gpt2(), TARGETS, 2, 4.0, 0.0, generators[1]).get_base_model()
    for name, layer in lora_layers(ours).items():
        assert torch.equal(layer.a, theirs.get_submodule(name).lora_A["default"].weight)
        assert layer.a.abs().max() <= layer.a.shape[1] ** -0.5  # peft's own bound


def test_an_adapter_is_saved_for_us_and_for_peft(
    make_gpt2: Callable[..., Any], tmp_path: Path
) -> None:
    from peft import PeftModel

    ours, _ = both(make_gpt2)
    adapter.save_adapter(ours, tmp_path)
    again = make_gpt2()
    add_lora(again, TARGETS, 3, 12.0)
    adapter.load_adapter(again, tmp_path)
    theirs = PeftModel.from_pretrained(make_gpt2(), str(tmp_path)).eval()
    with torch.no_grad():
        expected = ours(TOKENS).logits
        assert torch.equal(again(TOKENS).logits, expected)
        torch.testing.assert_close(theirs(TOKENS).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("with_head", [False, "auto"])
def test_an_adapter_that_peft_saved_is_read(
    make_gpt2: Callable[..., Any], tmp_path: Path, with_head: Any
) -> None:
    _, theirs = both(make_gpt2)
    theirs.save_pretrained(str(tmp_path), save_embedding_layers=with_head)
    ours = make_gpt2()
    add_lora(ours, TARGETS, 3, 12.0)
    adapter.load_adapter(ours, tmp_path)
    with torch.no_grad():
        torch.testing.assert_close(ours(TOKENS).logits, theirs(TOKENS).logits, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize(
    ("targets", "rank", "alpha", "message"),
    [
        (TARGETS, 2, 8.0, "does not fit transformer.h.0.attn.c_attn: expected rank 2"),
        (TARGETS, 3, 3.0, "alpha / rank 1, found 3 and 4; .*alpha=12"),
        (["c_attn"], 3, 12.0, "also adapts base_model.model.lm_head"),
    ],
)
def test_an_adapter_of_other_settings_is_refused(
    make_gpt2: Callable[..., Any], tmp_path: Path, targets: Any, rank: int, alpha: float,
    message: str,
) -> None:  # fmt: skip
    adapter.save_adapter(both(make_gpt2)[0], tmp_path)
    model = make_gpt2()
    add_lora(model, targets, rank, alpha)
    with pytest.raises(UsageError, match=message):
        adapter.load_adapter(model, tmp_path)


def test_layers_that_are_not_there_are_named(make_gpt2: Callable[..., Any]) -> None:
    with pytest.raises(
        UsageError, match=r"no layer called q_proj; type targets=\[c_attn,c_fc,c_proj,lm_head\]"
    ):
        add_lora(make_gpt2(), ["c_attn", "q_proj"], 2, 4.0)
