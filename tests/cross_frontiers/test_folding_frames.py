"""Frames, superposition and scores of structures, against SciPy, Biopython and TM-align."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial.transform import Rotation
from torch import Tensor

from cross_frontiers.folding import frames as rigid
from cross_frontiers.folding import geometry
from cross_frontiers.folding.frames import Frames

RNG = np.random.default_rng


def turned(*shape: int, seed: int = 0) -> Frames:
    """Random frames in float64."""
    rng = RNG(seed)
    count = int(np.prod(shape))
    rotation = Rotation.random(count, rng=rng).as_matrix().reshape(*shape, 3, 3)
    return Frames(torch.from_numpy(rotation), torch.from_numpy(rng.normal(size=(*shape, 3)) * 5))


def points(*shape: int, seed: int = 1) -> Tensor:
    return torch.from_numpy(RNG(seed).normal(size=(*shape, 3)) * 3)


# --- frames ---


@pytest.mark.exercise("folding.frames.from_points")
def test_axes_from_three_points_written_out() -> None:
    """N on the y side, C on the x axis: the frame is the identity; and a quarter turn of it."""
    a, origin, b = (
        torch.tensor([v], dtype=torch.float64) for v in ((2.0, 5, 0), (0, 0, 0), (3, 0, 0))
    )
    found = rigid.from_points(a, origin, b)
    torch.testing.assert_close(found.rotation[0], torch.eye(3, dtype=torch.float64))
    a, origin, b = (
        torch.tensor([v], dtype=torch.float64) for v in ((-4.0, 2, 7), (1, 2, 7), (1, 5, 7))
    )
    found = rigid.from_points(a, origin, b)
    expected = torch.tensor([[0.0, -1, 0], [1, 0, 0], [0, 0, 1]], dtype=torch.float64)
    torch.testing.assert_close(found.rotation[0], expected)
    assert found.translation.tolist() == [[1, 2, 7]]


@pytest.mark.exercise("folding.frames.from_points")
@pytest.mark.parametrize("shape", [(), (1,), (2, 5)])
def test_frames_from_points_are_rotations_that_follow_them(shape: tuple[int, ...]) -> None:
    a, origin, b = (points(*shape, seed=s) for s in (1, 2, 3))
    before = a.clone(), origin.clone(), b.clone()
    rotation, translation = rigid.from_points(a, origin, b)
    eye = torch.eye(3, dtype=torch.float64).expand(*shape, 3, 3)
    torch.testing.assert_close(rotation.mT @ rotation, eye)
    torch.testing.assert_close(torch.linalg.det(rotation), torch.ones(shape, dtype=torch.float64))
    local = torch.einsum("...ji,...j->...i", rotation, b - translation)
    torch.testing.assert_close(local[..., 1:], torch.zeros_like(local[..., 1:]))
    assert (local[..., 0] > 0).all()
    side = torch.einsum("...ji,...j->...i", rotation, a - translation)
    torch.testing.assert_close(side[..., 2], torch.zeros(shape, dtype=torch.float64))
    assert (side[..., 1] > 0).all()
    move = turned(seed=9)
    moved = rigid.from_points(*(rigid.apply(move, p) for p in (a, origin, b)))
    torch.testing.assert_close(moved.rotation, move.rotation @ rotation)
    torch.testing.assert_close(moved.translation, rigid.apply(move, translation))
    for now, then in zip((a, origin, b), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.exercise("folding.frames.from_points")
def test_frames_from_points_keep_type_and_gradient() -> None:
    a, origin, b = (points(4, seed=s).float().requires_grad_() for s in (1, 2, 3))
    found = rigid.from_points(a, origin, b)
    assert found.rotation.dtype == found.translation.dtype == torch.float32
    (found.rotation[..., 0, 1].sum() + found.rotation[..., 2, 2].sum()).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in (a, origin, b))


@pytest.mark.exercise("folding.frames.invert_apply")
@pytest.mark.parametrize(
    ("frame", "point"), [((3,), (3,)), ((2, 1), (2, 5)), ((), (4,)), ((1,), (1,))]
)
def test_global_points_in_their_frames(frame: tuple[int, ...], point: tuple[int, ...]) -> None:
    its, x = turned(*frame), points(*point)
    before = its.rotation.clone(), its.translation.clone(), x.clone()
    found = rigid.invert_apply(its, x)
    rotation = np.broadcast_to(its.rotation.numpy(), (*found.shape[:-1], 3, 3)).reshape(-1, 3, 3)
    shift = np.broadcast_to(its.translation.numpy(), found.shape).reshape(-1, 3)
    everything = np.broadcast_to(x.numpy(), found.shape).reshape(-1, 3)
    expected = Rotation.from_matrix(rotation).inv().apply(everything - shift)
    np.testing.assert_allclose(found.reshape(-1, 3), expected, atol=1e-12)
    torch.testing.assert_close(rigid.apply(its, found), x.expand_as(found))
    for now, then in zip((its.rotation, its.translation, x), before, strict=True):
        assert torch.equal(now, then)


@pytest.mark.exercise("folding.frames.compose")
@pytest.mark.parametrize(
    ("outer", "inner"), [((3,), (3,)), ((2, 1), (2, 5)), ((), (4,)), ((1,), (1,))]
)
def test_composed_frames_act_one_after_the_other(
    outer: tuple[int, ...], inner: tuple[int, ...]
) -> None:
    one, two = turned(*outer), turned(*inner, seed=4)
    before = [part.clone() for part in (*one, *two)]
    found = rigid.compose(one, two)
    shape = torch.broadcast_shapes(outer, inner)
    assert found.rotation.shape == (*shape, 3, 3)
    assert found.translation.shape == (*shape, 3)
    x = points(*shape)
    torch.testing.assert_close(rigid.apply(found, x), rigid.apply(one, rigid.apply(two, x)))
    assert all(torch.equal(a, b) for a, b in zip((*one, *two), before, strict=True))


@pytest.mark.exercise("folding.frames.compose")
@pytest.mark.exercise("folding.frames.invert_apply")
def test_frames_have_gradients() -> None:
    one, two = (Frames(*(part.requires_grad_() for part in turned(2, seed=s))) for s in (1, 2))
    found = rigid.compose(one, two)
    (found.rotation[..., 0, 1].sum() + found.translation[..., 2].sum()).backward()
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in (*one, *two))
    its, x = (
        Frames(*(part.requires_grad_() for part in turned(2, seed=5))),
        points(2).requires_grad_(),
    )
    rigid.invert_apply(its, x)[..., 1].sum().backward()
    assert all(part.grad is not None and part.grad.abs().sum() > 0 for part in (*its, x))


def test_inverse_identity_and_devices() -> None:
    its = turned(2, 3)
    eye = rigid.identity((2, 3), its.rotation)
    torch.testing.assert_close(rigid.compose(its, rigid.invert(its)).rotation, eye.rotation)
    torch.testing.assert_close(rigid.compose(rigid.invert(its), its).translation, eye.translation)
    meta = Frames(torch.empty(2, 3, 3, device="meta"), torch.empty(2, 3, device="meta"))
    assert rigid.compose(meta, meta).translation.device.type == "meta"
    assert rigid.identity((4,), meta.rotation).rotation.device.type == "meta"


def test_updates_are_quaternions() -> None:
    update = torch.from_numpy(RNG(0).normal(size=(5, 6)))
    found = rigid.from_update(update)
    quaternion = np.concatenate((np.ones((5, 1)), update[:, :3].numpy()), axis=1)
    expected = Rotation.from_quat(quaternion, scalar_first=True).as_matrix()
    np.testing.assert_allclose(found.rotation, expected, atol=1e-12)
    assert torch.equal(found.translation, update[:, 3:])
    nothing = rigid.from_update(torch.zeros(1, 6))
    assert torch.equal(nothing.rotation[0], torch.eye(3))


# --- superposition and scores ---


def chain(length: int, seed: int = 0) -> np.ndarray:
    """A random walk with steps of 3.8 Å."""
    steps = RNG(seed).normal(size=(length, 3))
    return np.cumsum(3.8 * steps / np.linalg.norm(steps, axis=1, keepdims=True), axis=0)


@pytest.mark.exercise("folding.geometry.kabsch")
@pytest.mark.parametrize("length", [3, 4, 30])
def test_superposition_is_scipys(length: int) -> None:
    x, y = chain(length, 1) + 7, chain(length, 2) - 3
    before = x.copy(), y.copy()
    rotation, translation = geometry.kabsch(x, y)
    expected, _ = Rotation.align_vectors(y - y.mean(0), x - x.mean(0))
    np.testing.assert_allclose(rotation, expected.as_matrix(), atol=1e-7)
    np.testing.assert_allclose(translation, y.mean(0) - expected.apply(x.mean(0)), atol=1e-6)
    assert np.array_equal(x, before[0])
    assert np.array_equal(y, before[1])


@pytest.mark.exercise("folding.geometry.kabsch")
def test_superposition_finds_a_motion_and_refuses_a_mirror() -> None:
    x = chain(12)
    motion = Rotation.from_euler("zyx", (50, -20, 110), degrees=True)
    rotation, translation = geometry.kabsch(x, motion.apply(x) + np.array([1.0, -2, 30]))
    np.testing.assert_allclose(rotation, motion.as_matrix(), atol=1e-10)
    np.testing.assert_allclose(translation, (1, -2, 30), atol=1e-8)
    rotation, _ = geometry.kabsch(x, x * (1, 1, -1))
    assert np.linalg.det(rotation) == pytest.approx(1)
    expected, _ = Rotation.align_vectors((x - x.mean(0)) * (1, 1, -1), x - x.mean(0))
    np.testing.assert_allclose(rotation, expected.as_matrix(), atol=1e-7)


@pytest.mark.exercise("folding.geometry.kabsch")
def test_superposition_never_reflects() -> None:
    """Of many pairs, mirrored or not: the sign belongs to both factors of H together."""
    for seed in range(12):
        x = RNG(seed).normal(size=(6, 3))
        y = x * (1, 1, (-1) ** seed) + 0.1 * RNG(seed + 90).normal(size=(6, 3))
        rotation, _ = geometry.kabsch(x, y)
        assert np.linalg.det(rotation) == pytest.approx(1)
        expected, _ = Rotation.align_vectors(y - y.mean(0), x - x.mean(0))
        np.testing.assert_allclose(rotation, expected.as_matrix(), atol=1e-7)
    x = np.diag([1.0, 2.0, 3.0])  # both factors of its H are reflections
    x = np.concatenate((x, -x))
    np.testing.assert_allclose(geometry.kabsch(x, x)[0], np.eye(3), atol=1e-12)


@pytest.mark.parametrize("length", [4, 17])
def test_rmsd_is_biopythons(length: int) -> None:
    superimposer = pytest.importorskip("Bio.SVDSuperimposer").SVDSuperimposer()
    x, y = chain(length, 3), chain(length, 4)
    superimposer.set(y, x)
    superimposer.run()
    assert geometry.rmsd(x, y) == pytest.approx(superimposer.get_rms(), rel=1e-6)
    assert geometry.rmsd(x, x + 5) == pytest.approx(0, abs=1e-9)
    moved = geometry.superpose(x, y)
    np.testing.assert_allclose(moved, superimposer.get_transformed(), atol=1e-6)


@pytest.mark.exercise("folding.geometry.lddt")
def test_lddt_by_counting() -> None:
    for seed, length in ((0, 25), (1, 7), (2, 2)):
        true = chain(length, seed)
        predicted = true + RNG(seed).normal(size=true.shape) * 1.2
        before = predicted.copy(), true.copy()
        kept = total = 0
        for i in range(length):
            for j in range(length):
                apart = np.sqrt(((true[i] - true[j]) ** 2).sum())
                if i != j and apart < 15:
                    error = abs(np.sqrt(((predicted[i] - predicted[j]) ** 2).sum()) - apart)
                    kept += sum(error < tolerance for tolerance in (0.5, 1, 2, 4))
                    total += 4
        found = geometry.lddt(predicted, true)
        assert isinstance(found, float)
        assert found == pytest.approx(kept / total)
        assert np.array_equal(predicted, before[0])
        assert np.array_equal(true, before[1])


@pytest.mark.exercise("folding.geometry.lddt")
def test_lddt_at_its_bounds() -> None:
    def line(*at: float) -> np.ndarray:
        return np.array([[x, 0, 0] for x in at])

    assert geometry.lddt(line(0, 10.5), line(0, 10)) == 0.75  # an error of 0.5 is not below 0.5
    assert geometry.lddt(line(0, 14), line(0, 10)) == 0
    assert geometry.lddt(line(0, 12.5), line(0, 10)) == 0.25
    assert geometry.lddt(line(0, 9.25), line(0, 10)) == 0.75
    assert geometry.lddt(line(0, 100), line(0, 14.9)) == 0
    # near in the prediction alone does not count; 15 itself is too far
    assert geometry.lddt(line(0, 1, 2), line(0, 1, 40)) == 1
    assert geometry.lddt(line(0, 1, 2), line(0, 1, 16)) == 1
    assert geometry.lddt(line(0, 3, 6), line(0, 1, 15)) == (0.25 + 0) / 2
    with pytest.raises(ValueError):
        geometry.lddt(line(0, 15), line(0, 15))
    with pytest.raises(ValueError):
        geometry.lddt(line(0), line(0))


@pytest.mark.exercise("folding.geometry.lddt")
def test_lddt_needs_no_superposition_and_overlooks_mirrors() -> None:
    true = chain(20)
    motion = Rotation.random(rng=RNG(0))
    assert geometry.lddt(motion.apply(true) + 9, true) == 1
    assert geometry.lddt(true * (-1, 1, 1), true) == 1


@pytest.mark.exercise("folding.geometry.tm_terms")
def test_tm_terms_by_the_formula() -> None:
    for length, scale in ((100, 1.24 * 85 ** (1 / 3) - 1.8), (46, 1.24 * 31 ** (1 / 3) - 1.8)):
        distance = RNG(length).uniform(0, 9, length)
        before = distance.copy()
        found = geometry.tm_terms(distance)
        np.testing.assert_allclose(found, [1 / length / (1 + (d / scale) ** 2) for d in distance])
        assert np.array_equal(distance, before)
    assert geometry.tm_terms(np.zeros(31)).sum() == pytest.approx(1)


@pytest.mark.exercise("folding.geometry.tm_terms")
@pytest.mark.parametrize("length", [1, 10, 14, 15, 16, 19, 21])
def test_tm_terms_of_short_chains(length: int) -> None:
    """Up to 21 residues, the formula gives less than 0.5 Å."""
    found = geometry.tm_terms(np.full(length, 1.5))
    np.testing.assert_allclose(found, np.full(length, 0.1 / length))


@pytest.mark.exercise("folding.geometry.tm_terms")
def test_tm_terms_just_above_the_least_scale() -> None:
    scale = 1.24 * 8 ** (1 / 3) - 1.8  # 0.68
    np.testing.assert_allclose(geometry.tm_terms(np.full(23, scale)), np.full(23, 0.5 / 23))


@pytest.mark.parametrize(
    ("length", "seed", "noise", "published", "within"),
    [
        (60, 0, 0.8, 0.800945981687, 1e-6),
        (100, 2, 1.0, 0.843719760689, 1e-6),
        (120, 6, 0.6, 0.942000947028, 1e-6),
        (40, 7, 1.0, 0.636439934007, 1e-3),
    ],
)
def test_tm_scores_of_the_published_program(
    length: int, seed: int, noise: float, published: float, within: float
) -> None:
    """TM-align (Zhang and Skolnick 2005) of tmtools 0.3.0, whose alignment here is one to one."""
    true = chain(length, seed)
    predicted = true + RNG(seed + 50).normal(size=true.shape) * noise
    found = geometry.tm_score(predicted, true)
    assert found == pytest.approx(published, abs=within)
    moved = Rotation.random(rng=RNG(1)).apply(predicted) + 4
    assert geometry.tm_score(moved, true) == pytest.approx(found, abs=1e-9)


def test_the_search_finds_the_half_that_fits() -> None:
    """Of a broken chain, one half fits exactly; superposing all of it fits neither."""
    true = chain(80, 5)
    broken = np.concatenate((true[:50], true[50:] * (1, -1, -1) + (15, 0, 0)))
    assert geometry.tm_score(broken, true) >= 50 / 80
    whole = np.linalg.norm(geometry.superpose(broken, true) - true, axis=1)
    assert geometry.tm_terms(whole).sum() < 0.5
    assert geometry.tm_score(true[:3], true[:3]) == pytest.approx(1)
