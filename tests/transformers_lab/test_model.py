"""The model against torch.nn.Transformer with the same weights: outputs and gradients."""

from collections.abc import Callable
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn

from attention.heads import Backend
from transformers_lab import Transformer, model
from transformers_lab.bpe import PAD
from transformers_lab.model import Shape

V, D, H, L, FF = 13, 16, 4, 2, 24
SOURCE = torch.tensor([[5, 6, 7, 8, 2], [9, 4, 2, PAD, PAD], [2, PAD, PAD, PAD, PAD]])
TARGET = torch.tensor([[1, 5, 6, 7], [1, 8, 2, PAD], [1, 12, 11, 10]])


def build(pre_norm: bool, dropout: float = 0.0) -> Transformer:
    """A small model with weights, biases and norms away from what they begin with."""
    torch.manual_seed(0)
    ours = Transformer(V, Shape(D, H, L, FF, dropout, pre_norm))
    for parameter in ours.parameters():
        if parameter.dim() == 1:
            nn.init.normal_(parameter, mean=0.5)
    return ours


def torchs(ours: Transformer) -> nn.Transformer:
    """nn.Transformer with the same weights; the paper's post-norm has no norm at its end."""
    pre_norm = ours.shape.pre_norm
    theirs = nn.Transformer(D, H, L, L, FF, 0.0, norm_first=pre_norm, batch_first=True)
    with torch.no_grad():
        for half, layers in ((theirs.encoder, ours.encoder), (theirs.decoder, ours.decoder)):
            for its, mine in zip(half.layers, layers, strict=True):
                _copy_attention(its.self_attn, mine.attention)
                if hasattr(its, "multihead_attn"):
                    _copy_attention(its.multihead_attn, mine.cross)
                for i, norm in enumerate(mine.norms, start=1):
                    getattr(its, f"norm{i}").load_state_dict(norm.state_dict())
                its.linear1.load_state_dict(mine.mlp[0].state_dict())
                its.linear2.load_state_dict(mine.mlp[2].state_dict())
        if pre_norm:
            theirs.encoder.norm.load_state_dict(ours.encoder_norm.state_dict())
            theirs.decoder.norm.load_state_dict(ours.decoder_norm.state_dict())
        else:
            theirs.encoder.norm = theirs.decoder.norm = None
    return theirs


def _copy_attention(its: nn.MultiheadAttention, mine: nn.Module) -> None:
    its.in_proj_weight.copy_(torch.cat([mine.q.weight, mine.k.weight, mine.v.weight]))
    its.out_proj.weight.copy_(mine.out.weight)
    its.in_proj_bias.zero_()
    its.out_proj.bias.zero_()


def embedded(weight: Tensor, tokens: Tensor) -> Tensor:
    """Section 3.4 and 3.5, number by number."""
    positions = torch.zeros(tokens.shape[1], D)
    for p in range(tokens.shape[1]):
        for i in range(D // 2):
            angle = torch.tensor(p / 10_000 ** (2 * i / D))
            positions[p, 2 * i], positions[p, 2 * i + 1] = angle.sin(), angle.cos()
    return weight[tokens] * D**0.5 + positions


@pytest.mark.parametrize("pre_norm", [True, False])
def test_logits_and_gradients_are_those_of_nn_transformer(pre_norm: bool) -> None:
    ours = build(pre_norm)
    theirs = torchs(ours)
    weight = ours.embedding.weight.detach().clone().requires_grad_()
    future = torch.ones(4, 4, dtype=torch.bool).triu(1)  # True is left out
    padded = SOURCE == PAD
    out = theirs(
        embedded(weight, SOURCE), embedded(weight, TARGET), tgt_mask=future,
        src_key_padding_mask=padded, memory_key_padding_mask=padded,
    )  # fmt: skip
    expected, found = out @ weight.T, ours(SOURCE, TARGET)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)
    probe = torch.randn(found.shape, generator=torch.Generator().manual_seed(1))
    (found * probe).sum().backward()
    (expected * probe).sum().backward()
    pairs = [(ours.embedding.weight, weight)]
    for its, mine in zip(theirs.decoder.layers, ours.decoder, strict=True):
        pairs += [(mine.norms[1].weight, its.norm2.weight), (mine.mlp[0].bias, its.linear1.bias)]
        for a, b in ((its.self_attn, mine.attention), (its.multihead_attn, mine.cross)):
            stacked = torch.cat([b.q.weight.grad, b.k.weight.grad, b.v.weight.grad])
            torch.testing.assert_close(stacked, a.in_proj_weight.grad, atol=1e-4, rtol=1e-3)
    pairs.append((ours.encoder[0].mlp[0].weight, theirs.encoder.layers[0].linear1.weight))
    for x, y in pairs:
        torch.testing.assert_close(x.grad, y.grad, atol=1e-4, rtol=1e-3)


@pytest.mark.exercise("model.residual")
@pytest.mark.parametrize("pre_norm", [True, False])
def test_residual_is_torchs_layer(pre_norm: bool) -> None:
    """nn.TransformerEncoderLayer, its attention's output being 0, is its feed-forward half."""
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(D, H, FF, 0.0, norm_first=pre_norm, batch_first=True)
    nn.init.zeros_(layer.self_attn.out_proj.weight)
    nn.init.normal_(layer.norm1.bias)
    nn.init.normal_(layer.norm2.bias)
    x = torch.randn(2, 5, D)

    def attention(h: Tensor) -> Tensor:
        return torch.zeros_like(h)

    def mlp(h: Tensor) -> Tensor:
        out: Tensor = layer.linear2(layer.linear1(h).relu())
        return out

    keep = nn.Identity()
    results = []
    leaves = [layer.linear1.weight, layer.norm2.weight, layer.norm2.bias]
    for own in (True, False):
        given = x.clone().requires_grad_()
        if own:
            half = model.residual(given, attention, layer.norm1, keep, pre_norm)
            out = model.residual(half, mlp, layer.norm2, keep, pre_norm)
        else:
            out = layer(given)
        weighted = (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum()
        results.append([out, *torch.autograd.grad(weighted, [given, *leaves])])
        assert torch.equal(given, x), "x itself stays"
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.exercise("model.residual")
@pytest.mark.parametrize("pre_norm", [True, False])
def test_residual_by_hand_with_each_part_called_once(pre_norm: bool) -> None:
    """norm doubles, dropout takes a tenth, the sublayer adds one."""
    calls: list[str] = []

    class Part(nn.Module):
        def __init__(self, name: str, factor: float) -> None:
            super().__init__()
            self.name, self.factor = name, factor

        def forward(self, x: Tensor) -> Tensor:
            calls.append(self.name)
            return self.factor * x

    def sublayer(x: Tensor) -> Tensor:
        calls.append("sublayer")
        return x + 1

    x = torch.tensor([[[3.0]]])
    found = model.residual(x, sublayer, Part("norm", 2), Part("dropout", 0.1), pre_norm)
    # 3 + 0.1 (2 · 3 + 1), and 2 (3 + 0.1 (3 + 1))
    assert found.item() == pytest.approx(3.7 if pre_norm else 6.8)
    assert sorted(calls) == ["dropout", "norm", "sublayer"]
    assert x.item() == 3


@pytest.mark.exercise("model.residual")
@pytest.mark.parametrize("pre_norm", [True, False])
def test_dropout_meets_the_sublayer_and_not_the_sum(pre_norm: bool) -> None:
    """With everything dropped, what is left is x, or its norm."""
    x, norm = torch.randn(2, 5, D), nn.LayerNorm(D)
    nn.init.normal_(norm.bias)
    found = model.residual(x, nn.Linear(D, D), norm, nn.Dropout(1.0), pre_norm)
    torch.testing.assert_close(found, x if pre_norm else norm(x))


@pytest.mark.exercise("model.DecoderLayer.look_across")
@pytest.mark.parametrize("backend", ["naive", "sdpa"])
@pytest.mark.parametrize(
    ("batch", "length", "source"), [(3, 2, 5), (1, 1, 1), (2, 7, 4), (4, 1, 6)]
)
def test_looking_across_is_torchs_attention_with_its_gradients(
    batch: int, length: int, source: int, backend: Backend
) -> None:
    """Three heads of eight; every sentence has a padding of its own."""
    torch.manual_seed(0)
    width, heads = 24, 3
    layer = model.DecoderLayer(Shape(width, heads, 1, 8, 0.0, True, backend))
    theirs = nn.MultiheadAttention(width, heads, bias=False, batch_first=True)
    with torch.no_grad():
        stacked = torch.cat([layer.cross.q.weight, layer.cross.k.weight, layer.cross.v.weight])
        theirs.in_proj_weight.copy_(stacked)
        theirs.out_proj.weight.copy_(layer.cross.out.weight)
    h, encoded = torch.randn(batch, length, width), torch.randn(batch, source, width)
    seen = torch.arange(source) < torch.tensor([[source - b % source] for b in range(batch)])
    results = []
    for own in (True, False):
        leaves = [h.clone().requires_grad_(), encoded.clone().requires_grad_()]
        if own:
            keys, values = layer.remember(leaves[1])
            out = layer.look_across(leaves[0], keys, values, seen[:, None, None, :])
        else:
            out = theirs(leaves[0], leaves[1], leaves[1], key_padding_mask=~seen)[0]
        weighted = (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum()
        results.append([out, *torch.autograd.grad(weighted, leaves)])
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("pre_norm", [True, False])
def test_padding_changes_nothing(pre_norm: bool) -> None:
    ours = build(pre_norm)
    wider = torch.cat([SOURCE, torch.full((3, 4), PAD)], dim=1)
    torch.testing.assert_close(ours(wider, TARGET), ours(SOURCE, TARGET), atol=1e-5, rtol=1e-5)


def test_every_token_of_the_source_reaches_every_output_and_no_later_target_does() -> None:
    ours = build(True)
    before = ours(SOURCE[:1], TARGET[:1])
    for place in range(5):
        changed = SOURCE[:1].clone()
        changed[0, place] = 3
        assert (ours(changed, TARGET[:1]) != before).any(dim=-1).all()
    changed = TARGET[:1].clone()
    changed[0, 2] = 3
    moved = (ours(SOURCE[:1], changed) != before).any(dim=-1)[0]
    assert moved.tolist() == [False, False, True, True]


def test_inverted_mask_sees_nothing_of_the_source(
    planted: Callable[[str], ModuleType], monkeypatch: pytest.MonkeyPatch
) -> None:
    """broken_mask: exchange a source for another of its length, and nothing changes."""
    wrong = planted("batches.padding_mask: the opposite meaning")
    monkeypatch.setattr("transformers_lab.model.padding_mask", wrong.padding_mask)
    torch.manual_seed(0)
    ours = Transformer(V, Shape(D, H, L, FF, 0.0, True))
    other = torch.where((SOURCE != PAD) & (SOURCE != 2), 3, SOURCE)
    assert not torch.equal(other, SOURCE)
    torch.testing.assert_close(ours(other, TARGET), ours(SOURCE, TARGET))


@pytest.mark.parametrize("pre_norm", [True, False])
@pytest.mark.parametrize("backend", ["naive", "sdpa"])
def test_decoding_with_the_cache_is_the_full_forward_pass(pre_norm: bool, backend: str) -> None:
    torch.manual_seed(0)
    ours = Transformer(V, Shape(D, H, L, FF, 0.0, pre_norm, backend))  # type: ignore[arg-type]
    with torch.no_grad():
        memory, caches = ours.encode(SOURCE), ours.new_caches(3, 4)
        parts = [ours.decode(p, memory, caches) for p in TARGET.split([1, 2, 1], dim=1)]
        whole = ours(SOURCE, TARGET)
    torch.testing.assert_close(ours.logits(torch.cat(parts, dim=1)), whole, atol=1e-5, rtol=1e-5)


def test_maps_are_week_fives_weights() -> None:
    ours = build(True)
    seen: list[Tensor] = []
    for layer in ours.decoder_layers:
        layer.cross.q.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    context: list[Tensor] = []
    ours.encoder_norm.register_forward_hook(lambda _, __, out: context.append(out))
    with torch.no_grad():
        maps = ours.maps(SOURCE, TARGET)
        expected = [
            layer.cross.maps(h, context[0], mask=(SOURCE != PAD)[:, None, None, :])
            for layer, h in zip(ours.decoder_layers, list(seen), strict=True)
        ]
    assert maps.shape == (L, 3, H, 4, 5)
    torch.testing.assert_close(maps, torch.stack(expected))


def test_selected_memory_is_that_of_the_selected_sentences() -> None:
    ours, rows = build(True), torch.tensor([2, 0, 0])
    with torch.no_grad():
        memory = ours.encode(SOURCE).select(rows)
        found = ours.logits(ours.decode(TARGET[rows], memory))
        torch.testing.assert_close(found, ours(SOURCE[rows], TARGET[rows]), atol=1e-5, rtol=1e-5)
