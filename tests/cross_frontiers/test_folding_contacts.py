"""Alignments: DCA against a plain computation, families made here, and what counts as a contact."""

from __future__ import annotations

import itertools
import zlib

import numpy as np
import pytest

from cross_frontiers.folding import dca, evaluate, generated
from cross_frontiers.folding.settings import FamilySettings

RNG = np.random.default_rng


def alignment(rows: int = 12, length: int = 5, states: int = 4, seed: int = 0) -> np.ndarray:
    return RNG(seed).integers(0, states, (rows, length))


# --- direct coupling analysis ---


@pytest.mark.exercise("folding.dca.sequence_weights")
@pytest.mark.parametrize(("rows", "length", "states"), [(12, 5, 2), (1, 4, 3), (30, 10, 2)])
def test_weights_by_counting(rows: int, length: int, states: int) -> None:
    msa = alignment(rows, length, states)
    before = msa.copy()
    for words in ({}, {"identity": 0.5}, {"identity": 1.0}, {"identity": 0.6}):
        share = words.get("identity", 0.8)
        expected = [
            1 / sum(sum(a == b for a, b in zip(x, y, strict=True)) >= share * length for y in msa)
            for x in msa
        ]
        found = dca.sequence_weights(msa, **words)
        assert found.dtype == np.float64
        np.testing.assert_allclose(found, expected)
    assert np.array_equal(msa, before)


@pytest.mark.exercise("folding.dca.sequence_weights")
def test_weights_count_effective_rows() -> None:
    """Four copies and one stranger count as two; 8 of 10 columns are alike enough, 7 are not."""
    msa = np.array([[1] * 10] * 4 + [[2] * 10])
    np.testing.assert_allclose(dca.sequence_weights(msa), [0.25] * 4 + [1])
    near = np.array([[0] * 10, [1] * 2 + [0] * 8])
    np.testing.assert_allclose(dca.sequence_weights(near), [0.5, 0.5])
    apart = np.array([[0] * 10, [1] * 3 + [0] * 7])
    np.testing.assert_allclose(dca.sequence_weights(apart), [1, 1])


def test_covariance_by_counting() -> None:
    msa, states, mixed = alignment(9, 3, 3), 3, 0.4
    weight = dca.sequence_weights(msa)
    total = weight.sum()
    expected = np.zeros((3, 2, 3, 2))
    for i, a, j, b in itertools.product(range(3), range(2), range(3), range(2)):
        single = [
            (1 - mixed) * weight[msa[:, k] == c].sum() / total + mixed / states
            for k, c in ((i, a), (j, b))
        ]
        both = weight[(msa[:, i] == a) & (msa[:, j] == b)].sum() / total
        uniform = (a == b) / states if i == j else 1 / states**2
        expected[i, a, j, b] = (1 - mixed) * both + mixed * uniform - single[0] * single[1]
    found = dca.covariance(msa, states, mixed)
    np.testing.assert_allclose(found, expected.reshape(6, 6), atol=1e-12)


@pytest.mark.exercise("folding.dca.coupling_norms")
@pytest.mark.parametrize(("length", "states"), [(4, 3), (2, 5), (3, 2), (1, 3)])
def test_coupling_norms_by_loops(length: int, states: int) -> None:
    half = RNG(1).normal(size=(length * (states - 1), 40))
    covariance = half @ half.T / 40
    before = covariance.copy()
    couplings = -np.linalg.inv(covariance)
    expected = np.zeros((length, length))
    for i, j in itertools.product(range(length), range(length)):
        block = np.zeros((states, states))
        for a, b in itertools.product(range(states - 1), range(states - 1)):
            block[a, b] = couplings[i * (states - 1) + a, j * (states - 1) + b]
        centred = block - block.mean(0) - block.mean(1)[:, None] + block.mean()
        expected[i, j] = 0 if i == j else np.linalg.norm(centred)
    found = dca.coupling_norms(covariance, states)
    np.testing.assert_allclose(found, expected, atol=1e-12)
    assert np.array_equal(covariance, before)


@pytest.mark.exercise("folding.dca.apc")
@pytest.mark.parametrize("length", [2, 3, 7])
def test_apc_by_loops(length: int) -> None:
    scores = RNG(0).uniform(1, 2, (length, length))
    scores = scores + scores.T
    before = scores.copy()
    pairs = [(i, j) for i in range(length) for j in range(length) if i != j]
    mean = [np.mean([scores[i, j] for j in range(length) if j != i]) for i in range(length)]
    whole = np.mean([scores[i, j] for i, j in pairs])
    found = dca.apc(scores)
    for i, j in pairs:
        assert found[i, j] == pytest.approx(scores[i, j] - mean[i] * mean[j] / whole)
    assert not found.diagonal().any()
    assert np.array_equal(scores, before)
    filled = scores.copy()
    np.fill_diagonal(filled, 50)
    np.testing.assert_allclose(dca.apc(filled), found)


@pytest.mark.exercise("folding.dca.apc")
def test_apc_removes_what_is_a_product_of_columns() -> None:
    ones = np.ones((5, 5))
    np.testing.assert_allclose(dca.apc(ones), 0, atol=1e-12)
    assert not dca.apc(np.zeros((4, 4))).any()
    alone = np.array([[0.0, 0, 0], [0, 0, 3], [0, 3, 0]])  # a column that goes with no other
    np.testing.assert_allclose(dca.apc(alone), [[0, 0, 0], [0, 0, 0.75], [0, 0.75, 0]])


def potts(
    fields: np.ndarray, couplings: dict[tuple[int, int], np.ndarray], rows: int
) -> np.ndarray:
    """Exact draws of a small Potts model, whose states are all listed."""
    length, states = fields.shape
    every = np.array(list(itertools.product(range(states), repeat=length)))
    energy = fields[np.arange(length), every].sum(axis=1)
    for (i, j), its in couplings.items():
        energy = energy + its[every[:, i], every[:, j]]
    chance = np.exp(energy - energy.max())
    return every[RNG(0).choice(len(every), rows, p=chance / chance.sum())]


def test_dca_tells_direct_from_indirect() -> None:
    """A chain of couplings 0-1-2-3-4: mutual information ranks 0-2 high, DCA does not."""
    strong = 2.0 * np.eye(3)
    links = {(i, i + 1): strong for i in range(4)}
    msa = potts(np.zeros((5, 3)), links, 4000)
    raw = dca.coupling_norms(dca.covariance(msa, 3, 0.05), 3)
    direct = min(raw[i, i + 1] for i in range(4))
    indirect = max(raw[i, i + 2] for i in range(3))
    assert indirect < 0.5 * direct
    scores = dca.mean_field(msa, 3)
    above = np.triu_indices(5, 1)
    best = np.argsort(-scores[above])[:4]
    assert {(int(above[0][k]), int(above[1][k])) for k in best} == set(links)


def test_mutual_information_of_columns() -> None:
    """Two equal columns and one of its own; each row twice, which the weights make one."""
    rows = np.array(list(itertools.product(range(2), range(2))))
    msa = np.repeat(np.stack([rows[:, 0], rows[:, 0], rows[:, 1]], axis=1), 2, axis=0)
    raw = np.array([[0, np.log(2), 0], [np.log(2), 0, 0], [0, 0, 0]])
    np.testing.assert_allclose(dca.mutual_information(msa, 2), dca.apc(raw), atol=1e-9)


# --- what counts ---


@pytest.mark.exercise("folding.evaluate.precision_at_l")
def test_precision_by_sorting() -> None:
    for seed, length in ((0, 12), (1, 9), (2, 6)):
        scores = RNG(seed).normal(size=(length, length))
        contacts = RNG(seed + 9).random((length, length)) < 0.3
        before = scores.copy(), contacts.copy()
        for words in ({}, {"separation": 2}, {"separation": 5}):
            apart = words.get("separation", 4)
            pairs = [(i, j) for i in range(length) for j in range(i + apart, length)]
            pairs.sort(key=lambda pair: -scores[pair])
            expected = np.mean([contacts[pair] for pair in pairs[:length]])
            found = evaluate.precision_at_l(scores, contacts, **words)
            assert isinstance(found, float)
            assert found == pytest.approx(expected)
        assert np.array_equal(scores, before[0])
        assert np.array_equal(contacts, before[1])


@pytest.mark.exercise("folding.evaluate.precision_at_l")
def test_neighbours_and_the_lower_half_do_not_count() -> None:
    length = 10
    place = np.abs(np.subtract.outer(np.arange(length), np.arange(length)))
    contacts = place < 4
    assert evaluate.precision_at_l(-place.astype(float), contacts) == 0
    assert evaluate.precision_at_l(-place.astype(float), contacts, separation=3) == pytest.approx(
        0.7
    )
    half = np.triu(np.ones((length, length), bool))
    assert evaluate.precision_at_l(np.tril(np.ones((length, length))), half) == 1
    assert evaluate.precision_at_l(np.ones((5, 5)), np.ones((5, 5), bool)) == 1  # one pair
    with pytest.raises(ValueError):
        evaluate.precision_at_l(np.ones((4, 4)), np.ones((4, 4), bool))


def test_mean_precision_and_top_pairs() -> None:
    scores = RNG(0).normal(size=(3, 9, 9))
    contacts = RNG(1).random((3, 9, 9)) < 0.5
    each = [evaluate.precision_at_l(s, c) for s, c in zip(scores, contacts, strict=True)]
    assert evaluate.mean_precision(scores, contacts) == pytest.approx(100 * np.mean(each))
    pairs = evaluate.top_pairs(scores[0])
    assert len(pairs) == 9
    assert each[0] == pytest.approx(np.mean([contacts[0][pair] for pair in pairs]))


def test_scores_by_separation_alone() -> None:
    contacts = RNG(1).random((6, 8, 8)) < 0.4
    contacts = contacts | contacts.transpose(0, 2, 1)
    found = evaluate.separation_scores(contacts)
    for i, j in ((0, 3), (5, 2), (7, 0)):
        share = np.mean([c[k, k + abs(i - j)] for c in contacts for k in range(8 - abs(i - j))])
        assert found[i, j] == pytest.approx(share)


def test_shared_folds() -> None:
    maps = RNG(0).random((4, 6, 6)) < 0.5
    assert evaluate.shared_folds(maps[:2], maps[2:]) == 0
    assert evaluate.shared_folds(maps[:3], maps[1:]) == pytest.approx(100 * 2 / 3)


# --- families made here ---

SMALL = FamilySettings(folds=40, per_fold=2, length=20, rows=16, clades=4, sweeps=3)


def test_chains_do_not_cross_and_are_compact() -> None:
    points = generated.chains(50, 30, RNG(0))
    steps = np.linalg.norm(np.diff(points, axis=1), axis=-1)
    np.testing.assert_allclose(steps, generated.STEP)
    distance = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)
    far = np.abs(np.subtract.outer(np.arange(30), np.arange(30))) >= 2
    assert (distance[:, far] >= generated.NEAREST).mean() > 0.99
    radius = np.sqrt(((points - points.mean(1, keepdims=True)) ** 2).sum(-1).mean(1))
    assert radius.mean() < generated.STEP * np.sqrt(
        30 / 6
    )  # that of a chain which may cross itself
    contacts = generated.contacts_of(points)
    for n, i, j in ((0, 3, 9), (1, 4, 6), (2, 0, 29), (0, 5, 6), (0, 7, 7)):
        expected = distance[n, i, j] < generated.TOUCH and abs(i - j) >= 2
        assert contacts[n, i, j] == contacts[n, j, i] == expected


@pytest.mark.exercise("folding.generated.split_of")
@pytest.mark.parametrize(("count", "length"), [(60, 9), (1, 5), (30, 4)])
def test_splits_by_the_rule(count: int, length: int) -> None:
    maps = RNG(count).random((count, length, length)) < 0.4
    maps = maps | maps.transpose(0, 2, 1)
    before = maps.copy()
    expected = []
    for its in maps:
        bits = [its[i, j] for i in range(length) for j in range(i + 1, length)]
        number = zlib.crc32(np.packbits(np.array(bits)).tobytes()) % 10
        expected.append(2 if number == 0 else 1 if number == 1 else 0)
    found = generated.split_of(maps)
    assert found.tolist() == expected
    assert found.dtype == np.int64
    assert np.array_equal(maps, before)


@pytest.mark.exercise("folding.generated.split_of")
def test_a_fold_is_in_one_split_wherever_it_stands() -> None:
    maps = RNG(5).random((40, 12, 12)) < 0.3
    maps = maps | maps.transpose(0, 2, 1)
    found = generated.split_of(maps)
    assert set(found.tolist()) == {0, 1, 2}
    assert np.array_equal(generated.split_of(maps.repeat(3, axis=0)), found.repeat(3))
    assert np.array_equal(generated.split_of(maps[::-1]), found[::-1])
    filled = maps.copy()
    filled[:, np.arange(12), np.arange(12)] ^= True
    assert np.array_equal(generated.split_of(filled), found)
    assert generated.split_of(maps[:1]).tolist() == found[:1].tolist()


def test_families_of_a_fold_stay_together() -> None:
    made = generated.make(SMALL, seed=3)
    assert sum(map(len, made.values())) == 80
    for its in made.values():
        assert len(its) > 0
        assert len(its) % 2 == 0
        assert its.msa.shape == (len(its), 16, 20)
        assert its.contacts.shape == (len(its), 20, 20)
        assert its.msa.min() >= 0
        assert its.msa.max() <= 20
    assert evaluate.shared_folds(made["train"].contacts, made["test"].contacts) == 0
    again = generated.make(SMALL, seed=3)
    assert all(again[split].digest() == made[split].digest() for split in made)
    assert generated.make(SMALL, seed=4)["train"].digest() != made["train"].digest()


def test_interactions_are_symmetric_and_say_what_they_should() -> None:
    oily, charged, size, like = generated.interactions()
    at = {letter: n for n, letter in enumerate("ARNDCQEGHILKMFPSTWYV")}
    for kind in (oily, charged, size, like):
        np.testing.assert_allclose(kind, kind.T, atol=1e-6)
        assert kind.mean() == pytest.approx(0, abs=1e-6)
        assert kind.std() == pytest.approx(1, abs=1e-5)
    assert oily[at["I"], at["V"]] > oily[at["I"], at["R"]]
    assert charged[at["K"], at["D"]] > charged[at["K"], at["R"]]
    assert size[at["G"], at["W"]] > size[at["W"], at["W"]]
    assert like[at["C"], at["C"]] > like[at["C"], at["S"]]


def test_gibbs_samples_the_model() -> None:
    """One pair that touches and one that does not: frequencies of pairs against the exact ones."""
    contacts = np.zeros((1, 4, 4), bool)
    contacts[0, 0, 3] = contacts[0, 3, 0] = True
    settings = FamilySettings(clades=4000, sweeps=4, preference=0.0, coupling=0.8, gaps=0.0)
    msa = generated.sample(contacts, settings, 4000, RNG(0))[0]
    pair = np.zeros((20, 20))
    np.add.at(pair, (msa[:, 0], msa[:, 3]), 1 / len(msa))
    exact = [np.exp(0.8 * kind) / np.exp(0.8 * kind).sum() for kind in generated.interactions()]
    gaps = [np.abs(pair - each).sum() for each in exact]
    noise = np.abs(RNG(1).multinomial(4000, exact[int(np.argmin(gaps))].ravel()) / 4000
                   - exact[int(np.argmin(gaps))].ravel()).sum()  # fmt: skip
    assert min(gaps) < 1.3 * noise
    assert sorted(gaps)[1] > 2 * noise
    free = np.zeros((20, 20))
    np.add.at(free, (msa[:, 0], msa[:, 1]), 1 / len(msa))
    assert np.abs(free - np.outer(free.sum(1), free.sum(0))).sum() < 1.3 * noise


def test_rows_of_a_clade_are_alike_and_gaps_are_rare() -> None:
    contacts = generated.contacts_of(generated.chains(2, 20, RNG(0)))
    few = FamilySettings(clades=1, sweeps=1, gaps=0.2, coupling=0.5)
    msa = generated.sample(contacts, few, 200, RNG(0))
    assert (msa == generated.GAP).mean() == pytest.approx(0.2, abs=0.03)
    none = generated.sample(contacts, FamilySettings(gaps=0.0), 5, RNG(0))
    assert none.max() < 20
