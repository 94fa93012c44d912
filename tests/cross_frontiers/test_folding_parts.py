"""The parts of the Evoformer and the structure module: formulas, and what must not change them."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor, nn

from cross_frontiers.folding import frames as rigid
from cross_frontiers.folding import ipa, model, msa, structure, triangle
from cross_frontiers.folding.frames import Frames
from cross_frontiers.folding.settings import EvoformerSettings
from labkit import UsageError

NET = EvoformerSettings(blocks=2, width=8, pair_width=12, heads=2, hidden=3, reach=4)


def normal(*shape: int, seed: int = 0) -> Tensor:
    return torch.from_numpy(np.random.default_rng(seed).normal(size=shape))


def turned(*shape: int, seed: int = 0) -> Frames:
    rng = np.random.default_rng(seed)
    rotation = Rotation.random(int(np.prod(shape)), rng=rng).as_matrix().reshape(*shape, 3, 3)
    return Frames(torch.from_numpy(rotation), torch.from_numpy(rng.normal(size=(*shape, 3)) * 3))


def moved(motion: Frames, frames: Frames) -> Frames:
    """All frames turned and moved together."""
    return rigid.compose(motion, frames)


def awake(module: nn.Module, seed: int = 0) -> nn.Module:
    """In float64, with no layer left at the zeros it began with."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn_like(parameter))
    return module.double().eval()


# --- alignments ---


@pytest.mark.exercise("folding.msa.outer_product_mean")
@pytest.mark.parametrize(("batch", "rows", "length"), [(2, 3, 4), (1, 1, 5), (3, 5, 1)])
def test_outer_product_mean_by_loops(batch: int, rows: int, length: int) -> None:
    a, b = normal(batch, rows, length, 2), normal(batch, rows, length, 3, seed=1)
    before = a.clone(), b.clone()
    found = msa.outer_product_mean(a, b)
    expected = torch.zeros(batch, length, length, 2, 3, dtype=torch.float64)
    for n in range(batch):
        for i in range(length):
            for j in range(length):
                for s in range(rows):
                    expected[n, i, j] += torch.outer(a[n, s, i], b[n, s, j]) / rows
    torch.testing.assert_close(found, expected)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


@pytest.mark.exercise("folding.msa.outer_product_mean")
def test_outer_product_mean_has_gradients_and_keeps_its_type() -> None:
    a, b = (normal(1, 2, 3, 2, seed=s).float().requires_grad_() for s in (0, 1))
    found = msa.outer_product_mean(a, b)
    assert found.dtype == torch.float32
    found[0, 0, 2, 1, 0].backward()
    assert a.grad is not None
    assert b.grad is not None
    torch.testing.assert_close(a.grad[0, :, 0, 1], b[0, :, 2, 0].detach() / 2)
    torch.testing.assert_close(b.grad[0, :, 2, 0], a[0, :, 0, 1].detach() / 2)
    meta = torch.empty(2, 3, 4, 5, device="meta")
    assert msa.outer_product_mean(meta, meta).shape == (2, 4, 4, 5, 5)


def attention_by_hand(layer: msa.GatedAttention, x: Tensor, bias: Tensor | None) -> Tensor:
    """x (N, C), bias (H, N, N): one row, with every product written out."""
    q, k, v = (part.unflatten(-1, (layer.heads, -1)) for part in layer.qkv(x).chunk(3, dim=-1))
    heads = []
    for h in range(layer.heads):
        scores = q[:, h] @ k[:, h].T / q.shape[-1] ** 0.5
        scores = scores if bias is None else scores + bias[h]
        heads.append(scores.softmax(-1) @ v[:, h])
    found: Tensor = layer.out(torch.sigmoid(layer.gate(x)) * torch.cat(heads, dim=-1))
    return found


def test_row_attention_is_along_rows_with_a_bias_from_the_pairs() -> None:
    layer = awake(msa.RowAttention(8, 12, 2))
    rows, pair = normal(2, 3, 5, 8), normal(2, 5, 5, 12, seed=1)
    found = layer(rows, pair)
    for n in range(2):
        bias = layer.bias(layer.pair_norm(pair[n])).permute(2, 0, 1)
        for s in range(3):
            expected = attention_by_hand(layer.attention, layer.norm(rows[n, s]), bias)
            torch.testing.assert_close(found[n, s], expected)


def test_column_attention_is_along_columns() -> None:
    layer = awake(msa.ColumnAttention(8, 2))
    rows = normal(2, 3, 5, 8)
    found = layer(rows)
    for n in range(2):
        for column in range(5):
            x = layer.norm(rows[n, :, column])
            expected = attention_by_hand(layer.attention, x, None)
            torch.testing.assert_close(found[n, :, column], expected)


def test_rows_have_no_order() -> None:
    rows, pair = normal(2, 4, 5, 8), normal(2, 5, 5, 12, seed=1)
    order = torch.tensor([2, 0, 3, 1])
    block = awake(model.Block(NET))
    new_rows, new_pair = block(rows, pair)
    mixed_rows, mixed_pair = block(rows[:, order], pair)
    torch.testing.assert_close(mixed_rows, new_rows[:, order])
    torch.testing.assert_close(mixed_pair, new_pair)
    contacts = awake(model.ContactModel(NET))
    tokens = torch.randint(0, 21, (2, 4, 6))
    logits = contacts(tokens)
    torch.testing.assert_close(contacts(tokens[:, order]), logits)
    torch.testing.assert_close(logits, logits.mT)
    assert logits.shape == (2, 6, 6)
    torch.testing.assert_close(contacts(tokens[:1]), logits[:1])


def test_blocks_begin_as_the_identity_of_rows() -> None:
    block = model.Block(NET)
    rows, pair = normal(1, 2, 3, 8).float(), normal(1, 3, 3, 12).float()
    new_rows, new_pair = block(rows, pair)
    assert torch.equal(new_rows, rows)
    assert torch.equal(new_pair, pair + block.outer(rows))


def test_distances_in_the_chain_are_told() -> None:
    net = awake(model.Evoformer(NET))
    tokens = torch.zeros(1, 1, 6, dtype=torch.int64)
    _, pair = net(tokens, torch.tensor([1, 2, 3, 4, 30, 31]))
    assert not torch.allclose(pair[0, 0, 1], pair[0, 1, 0])  # the direction counts
    _, counted = net(tokens, torch.tensor([5, 6, 7, 8, 9, 10]))
    torch.testing.assert_close(net(tokens)[1], counted)
    assert not torch.allclose(pair, counted)


# --- triangles ---


@pytest.mark.exercise("folding.triangle.triangle_product")
@pytest.mark.parametrize("outgoing", [True, False])
@pytest.mark.parametrize(("batch", "length"), [(2, 4), (1, 1), (1, 3)])
def test_triangle_products_by_loops(batch: int, length: int, outgoing: bool) -> None:
    a, b = normal(batch, length, length, 3), normal(batch, length, length, 3, seed=1)
    before = a.clone(), b.clone()
    found = triangle.triangle_product(a, b, outgoing)
    expected = torch.zeros_like(a)
    for i in range(length):
        for j in range(length):
            for k in range(length):
                if outgoing:
                    expected[:, i, j] += a[:, i, k] * b[:, j, k]
                else:
                    expected[:, i, j] += a[:, k, i] * b[:, k, j]
    torch.testing.assert_close(found, expected)
    assert torch.equal(a, before[0])
    assert torch.equal(b, before[1])


@pytest.mark.exercise("folding.triangle.triangle_product")
def test_triangle_products_differ_unless_edges_have_no_direction() -> None:
    a, b = normal(1, 4, 4, 2), normal(1, 4, 4, 2, seed=1)
    out, into = (triangle.triangle_product(a, b, outgoing) for outgoing in (True, False))
    assert not torch.allclose(out, into)
    turned_out = triangle.triangle_product(a.transpose(1, 2), b.transpose(1, 2), True)
    torch.testing.assert_close(turned_out, into)
    a.requires_grad_()
    b.requires_grad_()
    triangle.triangle_product(a, b, True)[0, 0, 1, 0].backward()
    assert a.grad is not None
    assert b.grad is not None
    torch.testing.assert_close(a.grad[0, 0, :, 0], b[0, 1, :, 0].detach())
    torch.testing.assert_close(b.grad[0, 1, :, 0], a[0, 0, :, 0].detach())
    a.grad = b.grad = None
    triangle.triangle_product(a, b, False)[0, 0, 1, 0].backward()
    assert a.grad is not None
    assert b.grad is not None
    torch.testing.assert_close(a.grad[0, :, 0, 0], b[0, :, 1, 0].detach())
    torch.testing.assert_close(b.grad[0, :, 1, 0], a[0, :, 0, 0].detach())


def test_triangle_attention_by_hand() -> None:
    """Edge ij attends to edges ik with a bias from jk; ending: to kj with a bias from ki."""
    pair = normal(2, 4, 4, 12)
    for starting in (True, False):
        layer = awake(triangle.TriangleAttention(12, 2, starting))
        z = layer.norm(pair)
        bias = layer.bias(z)
        found = layer(pair)
        for n in range(2):
            for fixed in range(4):
                edges = z[n, fixed] if starting else z[n, :, fixed]
                its = bias[n] if starting else bias[n].transpose(0, 1)  # [query, key]
                expected = attention_by_hand(layer.attention, edges, its.permute(2, 0, 1))
                got = found[n, fixed] if starting else found[n, :, fixed]
                torch.testing.assert_close(got, expected)


def test_updates_of_pairs_follow_a_new_order_of_residues() -> None:
    """Number the residues differently: the pairs are the same, in the new order."""
    pair, order = normal(1, 5, 5, 12), torch.tensor([3, 0, 4, 2, 1])
    for update in awake(model.Block(NET)).pair_updates:
        renumbered = update(pair[:, order][:, :, order])
        torch.testing.assert_close(renumbered, update(pair)[:, order][:, :, order])


def test_triangle_multiplication_sees_the_other_two_edges() -> None:
    for outgoing in (True, False):
        layer = awake(triangle.TriangleMultiplication(12, outgoing))
        pair = normal(1, 4, 4, 12).requires_grad_()
        layer(pair)[0, 0, 1].sum().backward()
        assert pair.grad is not None
        seen = pair.grad.abs().sum(-1)[0] > 0
        expected = torch.zeros(4, 4, dtype=torch.bool)
        expected[0, 1] = True  # by its own gate
        if outgoing:
            expected[:2] = True
        else:
            expected[:, :2] = True
        assert torch.equal(seen, expected)


# --- points in space ---


@pytest.mark.exercise("folding.ipa.point_scores")
@pytest.mark.parametrize(("shape", "points"), [((2, 3), 4), ((1, 1), 1), ((4,), 2)])
def test_point_scores_by_loops(shape: tuple[int, ...], points: int) -> None:
    query = normal(*shape, 2, points, 3).reshape(-1, shape[-1], 2, points, 3)
    key = normal(*shape, 2, points, 3, seed=1).reshape(query.shape)
    weight = torch.tensor([0.5, 2.0], dtype=torch.float64)
    before = query.clone(), key.clone(), weight.clone()
    found = ipa.point_scores(
        query.reshape(*shape, 2, points, 3), key.reshape(*shape, 2, points, 3), weight
    )
    assert found.shape == (*shape[:-1], 2, shape[-1], shape[-1])
    found = found.reshape(-1, 2, shape[-1], shape[-1])
    for n in range(len(query)):
        for h in range(2):
            for i in range(shape[-1]):
                for j in range(shape[-1]):
                    apart = sum(
                        float((query[n, i, h, p] - key[n, j, h, p]).square().sum())
                        for p in range(points)
                    )
                    expected = -float(weight[h]) / 2 * np.sqrt(2 / 9 / points) * apart
                    assert found[n, h, i, j].item() == pytest.approx(expected)
    for now, then in zip((query, key, weight), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.exercise("folding.ipa.point_scores")
def test_point_scores_have_gradients_and_do_not_cancel_far_from_the_origin() -> None:
    query, key = normal(3, 1, 2, 3).float(), normal(3, 1, 2, 3, seed=1).float()
    weight = torch.ones(1, requires_grad=True)
    near = ipa.point_scores(query, key, weight)
    far = ipa.point_scores(query + 1000, key + 1000, weight)
    torch.testing.assert_close(far, near, atol=2e-3, rtol=1e-3)
    query.requires_grad_()
    key.requires_grad_()
    ipa.point_scores(query, key, weight)[0, 0, 1].backward()
    for part in (query, key, weight):
        assert part.grad is not None
        assert part.grad.abs().sum() > 0
    assert torch.equal(query.grad[1:], torch.zeros_like(query[1:]))


def test_invariant_point_attention_does_not_see_the_motion_of_the_whole() -> None:
    layer = awake(ipa.InvariantPointAttention(8, 12, 2))
    single, pair, frames = normal(2, 5, 8), normal(2, 5, 5, 12), turned(2, 5)
    found = layer(single, pair, frames)
    motion = turned(1, seed=7)
    torch.testing.assert_close(
        layer(single, pair, moved(motion, frames)), found, atol=1e-10, rtol=0
    )
    other = turned(2, 5, seed=3)
    assert not torch.allclose(layer(single, pair, other), found)
    low = layer.float()(single.float(), pair.float(), Frames(*(p.float() for p in frames)))
    again = layer(single.float(), pair.float(), Frames(*(p.float() for p in moved(motion, frames))))
    torch.testing.assert_close(again, low, atol=1e-5, rtol=1e-5)


def test_invariant_point_attention_by_hand() -> None:
    """One residue's output from the formula, with every term in turn."""
    layer = awake(ipa.InvariantPointAttention(4, 3, 2, points=2, value_points=1))
    single, pair, frames = normal(3, 4), normal(3, 3, 3), turned(3)
    found = layer(single, pair, frames)
    q, k, v = (part.view(3, 2, 2) for part in layer.qkv(single).chunk(3, dim=-1))
    points = layer.to_points(single).view(3, 2, 5, 3)
    there = torch.stack(
        [points[i] @ frames.rotation[i].T + frames.translation[i] for i in range(3)]
    )
    outputs: list[list[Tensor]] = [[], [], [], []]
    weight = torch.log1p(layer.weight.exp())
    for h in range(2):
        logits = torch.stack([
            q[0, h] @ k[j, h] / 2**0.5
            + layer.bias(pair[0, j])[h]
            - weight[h] / 2 * (2 / 18) ** 0.5 * (there[0, h, :2] - there[j, h, 2:4]).square().sum()
            for j in range(3)
        ])  # fmt: skip
        share = (logits / 3**0.5).softmax(0)
        outputs[0].append(share @ v[:, h])
        outputs[1].append(share @ pair[0])
        seen = share @ there[:, h, 4]
        local = frames.rotation[0].T @ (seen - frames.translation[0])
        outputs[2].append(local)
        outputs[3].append((local @ local + 1e-8).sqrt()[None])
    expected = layer.out(torch.cat([part for group in outputs for part in group]))
    torch.testing.assert_close(found[0], expected)


@pytest.mark.exercise("folding.structure.fape")
@pytest.mark.parametrize(("batch", "frames", "points"), [((2,), 3, 5), ((), 1, 1), ((1,), 4, 2)])
def test_fape_by_loops(batch: tuple[int, ...], frames: int, points: int) -> None:
    one, two = turned(*batch, frames), turned(*batch, frames, seed=1)
    x, y = normal(*batch, points, 3) * 5, normal(*batch, points, 3, seed=2) * 5
    before = [part.clone() for part in (*one, *two, x, y)]
    for words in ({}, {"clamp": 3.0}, {"scale": 4.0}, {"eps": 0.5}, {"clamp": 1e9}):
        found = structure.fape(one, two, x, y, **words)
        assert found.shape == batch
        clamp, scale, eps = (
            words.get(n, d) for n, d in (("clamp", 10), ("scale", 10), ("eps", 1e-4))
        )
        for n in np.ndindex(*batch):
            total = 0.0
            for i in range(frames):
                for j in range(points):
                    a = one.rotation[n][i].T @ (x[n][j] - one.translation[n][i])
                    b = two.rotation[n][i].T @ (y[n][j] - two.translation[n][i])
                    total += min(clamp, np.sqrt(float((a - b).square().sum()) + eps))
            assert found[n].item() == pytest.approx(total / frames / points / scale)
    assert all(torch.equal(a, b) for a, b in zip((*one, *two, x, y), before, strict=True))


@pytest.mark.exercise("folding.structure.fape")
def test_fape_does_not_see_motions_but_sees_mirrors() -> None:
    one, two = turned(4), turned(4, seed=1)
    x, y = normal(6, 3) * 3, normal(6, 3, seed=2) * 3
    found = structure.fape(one, two, x, y)
    motion = turned(seed=8)
    turned_truth = structure.fape(one, moved(motion, two), x, rigid.apply(motion, y))
    torch.testing.assert_close(turned_truth, found, atol=1e-10, rtol=0)
    turned_guess = structure.fape(moved(motion, one), two, rigid.apply(motion, x), y)
    torch.testing.assert_close(turned_guess, found, atol=1e-10, rtol=0)
    same = structure.fape(moved(motion, two), two, rigid.apply(motion, y), y)
    assert same.item() == pytest.approx(0.001)  # √eps / scale
    a, c = normal(6, 3, seed=5), normal(6, 3, seed=6)
    flip = torch.tensor([1.0, 1.0, -1.0], dtype=torch.float64)
    right, left = rigid.from_points(a, y, c), rigid.from_points(a * flip, y * flip, c * flip)
    assert structure.fape(left, right, y * flip, y).item() > 0.1


@pytest.mark.exercise("folding.structure.fape")
def test_fape_has_gradients_also_where_it_is_zero() -> None:
    two, y = turned(3, seed=1), normal(3, 3) * 3
    x = y.clone().requires_grad_()
    rotation = two.rotation.clone().requires_grad_()
    translation = two.translation.clone().requires_grad_()
    structure.fape(Frames(rotation, translation), two, x, y).backward()
    assert torch.isfinite(x.grad).all()  # type: ignore[arg-type]
    shifted = (y + 0.1).requires_grad_()
    structure.fape(Frames(rotation, translation), two, shifted, y).backward()
    for part in (shifted, rotation, translation):
        assert part.grad is not None
        assert part.grad.abs().sum() > 0
    far = (y + 500).requires_grad_()
    structure.fape(two, two, far, y).backward()
    assert torch.equal(far.grad, torch.zeros_like(y))  # clamped
    meta = Frames(torch.empty(2, 3, 3, device="meta"), torch.empty(2, 3, device="meta"))
    assert structure.fape(meta, meta, meta.translation, meta.translation).device.type == "meta"


def test_the_structure_module_moves_frames_that_begin_together() -> None:
    net = awake(structure.StructureModule(8, 12, 2, layers=3))
    single, pair = normal(2, 5, 8), normal(2, 5, 5, 12)
    found = net(single, pair)
    assert len(found) == 3
    for its in found:
        assert its.translation.shape == (2, 5, 3)
        torch.testing.assert_close(
            its.rotation.mT @ its.rotation, torch.eye(3).expand(2, 5, 3, 3).to(its.rotation),
            atol=1e-5, rtol=0,
        )  # fmt: skip
    torch.testing.assert_close(net(single[:1], pair[:1])[-1].translation, found[-1].translation[:1])
    true = turned(2, 5)
    far = Frames(true.rotation, 30 * true.translation)
    each = [
        [structure.fape(f, far, f.translation, far.translation, c).mean().item() for f in found]
        for c in (10.0, 1e9)
    ]
    loss = structure.structure_loss(found, far, unclamped=0.25).item()
    assert loss == pytest.approx(0.75 * np.mean(each[0]) + 0.25 * np.mean(each[1]))
    assert structure.structure_loss(found, far, 0).item() == pytest.approx(np.mean(each[0]))
    again = structure.StructureModule(8, 12, 2, layers=2)
    with torch.no_grad():
        again.update.weight.zero_()
    still = again(single.float(), pair.float())[-1]
    assert torch.equal(still.translation, torch.zeros(2, 5, 3))


def test_the_folding_model_makes_frames_of_a_sequence() -> None:
    net = model.FoldingModel(NET, layers=2)
    tokens = torch.randint(0, 20, (1, 1, 7))
    (first, last) = net(tokens, torch.arange(7))
    structure.structure_loss([first, last], Frames(*(p.float() for p in turned(1, 7)))).backward()
    without = {n for n, p in net.named_parameters() if p.grad is None}
    assert not without


@pytest.mark.parametrize(("name", "tried"), [("width", 8), ("pair_width", 12)])
def test_heads_must_divide_the_channels(name: str, tried: int) -> None:
    net = EvoformerSettings(**{"width": 8, "pair_width": 12, "heads": 4, name: tried - 1})
    with pytest.raises(UsageError, match=rf"net\.{name}={tried - 1} .* try net\.{name}={tried}"):
        net.check()
    for layer in (msa.GatedAttention, lambda w, h: ipa.InvariantPointAttention(w, 3, h)):
        with pytest.raises(ValueError, match="3 heads do not divide 8 channels"):
            layer(8, 3)
