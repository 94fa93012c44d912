"""Protein families made here, whose contacts are known.

A fold is a compact chain that does not cross itself. Residues that touch are coupled, and the rows
of a family's alignment are drawn by Gibbs sampling from

    P(a_1 ... a_L) ~ exp( Σ_i h_i(a_i) + Σ_(i,j touch) J_kind(ij)(a_i, a_j) )

(a Potts model, what DCA assumes). The J are of four kinds, the same in all families, made from
published properties of the amino acids: oily beside oily, plus beside minus, large beside small,
and like beside like. This is what a network can learn from many families, and what DCA, which sees
one family at a time, cannot know. Rows come in clades that share an ancestor, as real ones do.

F families, S rows, L columns.
"""

from __future__ import annotations

import hashlib
import zlib
from dataclasses import dataclass

import numpy as np

from cross_frontiers.folding.pdb import GAP, LETTERS
from cross_frontiers.folding.settings import FamilySettings
from labkit import UsageError, exercise

STEP, NEAREST, TOUCH = 3.8, 4.5, 7.0
"""Å: between neighbours in the chain, between others at least, and between residues that touch."""
CANDIDATES = 24
"""Places from which the next residue of a chain is chosen."""
LEAST_SEPARATION = 2
"""Residues closer in the chain than this are never coupled."""
SPLITS = ("train", "valid", "test")
HYDROPATHY = dict(zip("ARNDCQEGHILKMFPSTWYV", (
    1.8, -4.5, -3.5, -3.5, 2.5, -3.5, -3.5, -0.4, -3.2, 4.5, 3.8, -3.9, 1.9, 2.8, -1.6, -0.8, -0.7,
    -0.9, -1.3, 4.2), strict=True))  # fmt: skip
"""Kyte and Doolittle 1982, table 2."""
VOLUME = dict(zip("ARNDCQEGHILKMFPSTWYV", (
    88.6, 173.4, 114.1, 111.1, 108.5, 143.8, 138.4, 60.1, 153.2, 166.7, 166.7, 168.6, 162.9, 189.9,
    112.7, 89.0, 116.1, 227.8, 193.6, 140.0), strict=True))  # fmt: skip
"""Å³, Zamyatnin 1972."""
CHARGE = {"R": 1.0, "K": 1.0, "D": -1.0, "E": -1.0, "H": 0.5}


@dataclass(frozen=True)
class Families:
    """Alignments with their contacts."""

    msa: np.ndarray
    """Numbers of amino acids or GAP, int64 (F, S, L)."""
    contacts: np.ndarray
    """Which residues touch, bool (F, L, L), symmetric, diagonal false."""

    def __len__(self) -> int:
        return len(self.msa)

    def digest(self) -> str:
        """SHA-256 over alignments and contacts."""
        total = hashlib.sha256(self.msa.astype(np.uint8).tobytes())
        total.update(np.packbits(self.contacts).tobytes())
        return total.hexdigest()


def interactions() -> np.ndarray:
    """Couplings of the four kinds, float32 (4, 20, 20), each with mean 0 and variance 1."""
    oily = _standard([HYDROPATHY[letter] for letter in LETTERS])
    large = _standard([VOLUME[letter] for letter in LETTERS])
    charge = np.array([CHARGE.get(letter, 0.0) for letter in LETTERS])
    kinds = np.stack(
        (
            np.outer(oily, oily),
            -np.outer(charge, charge),
            -((np.add.outer(large, large)) ** 2),
            np.eye(len(LETTERS)),
        )
    )
    kinds = kinds - kinds.mean(axis=(1, 2), keepdims=True)
    return (kinds / kinds.std(axis=(1, 2), keepdims=True)).astype(np.float32)


def _standard(values: list[float]) -> np.ndarray:
    array = np.array(values)
    return (array - array.mean()) / array.std()


def chains(count: int, length: int, rng: np.random.Generator) -> np.ndarray:
    """Compact chains of CA atoms, (count, length, 3), Å.

    Each next residue is chosen among CANDIDATES: not closer than NEAREST to an earlier one, and
    rather near the middle of the chain so far. Without such a place, the freest one is taken.
    """
    points = np.zeros((count, length, 3))
    heading = _directions(rng, (count,))
    for i in range(1, length):
        ways = _directions(rng, (count, CANDIDATES)) * 1.2 + heading[:, None]
        ways /= np.linalg.norm(ways, axis=-1, keepdims=True)
        places = points[:, i - 1, None] + STEP * ways
        earlier = points[:, None, : max(i - 1, 1)]
        room = np.linalg.norm(places[:, :, None] - earlier, axis=-1).min(axis=2)
        if i == 1:
            room += NEAREST
        off = np.linalg.norm(places - points[:, :i].mean(axis=1, keepdims=True), axis=-1)
        score = np.where(room >= NEAREST, rng.gumbel(size=off.shape) - off, room - 1e3)
        chosen = score.argmax(axis=1)
        points[:, i] = places[np.arange(count), chosen]
        heading = ways[np.arange(count), chosen]
    return points


def _directions(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    found = rng.normal(size=(*shape, 3))
    return found / np.linalg.norm(found, axis=-1, keepdims=True)


def contacts_of(points: np.ndarray) -> np.ndarray:
    """Which residues of (F, L, 3) touch, bool (F, L, L); neighbours in the chain do not count."""
    distance = np.linalg.norm(points[:, :, None] - points[:, None], axis=-1)
    place = np.arange(points.shape[1])
    return (distance < TOUCH) & (np.abs(np.subtract.outer(place, place)) >= LEAST_SEPARATION)


@exercise(minutes=20)
def split_of(contacts: np.ndarray) -> np.ndarray:
    """The split of each family, int64 (F,): 0 for training, 1 for validation, 2 for testing.

    It is a function of the family's own contact map alone, of `contacts` bool (F, L, L), so that
    families of one fold are never in two splits, whatever else is in the set. Take the map above
    its diagonal, row by row (`np.triu_indices(L, 1)`), as bits (`np.packbits`), and of their bytes
    `zlib.crc32` modulo 10: 0 is for testing, 1 for validation, the rest for training.
    """
    above = np.triu_indices(contacts.shape[1], 1)
    rest = [zlib.crc32(np.packbits(its[above]).tobytes()) % 10 for its in contacts]
    return np.array([{0: 2, 1: 1}.get(number, 0) for number in rest])


def sample(
    contacts: np.ndarray, settings: FamilySettings, rows: int, rng: np.random.Generator
) -> np.ndarray:
    """Alignments int64 (F, rows, L) of families with these contacts (F, L, L)."""
    count, length = contacts.shape[:2]
    states = len(LETTERS)
    kind = rng.integers(1, 5, contacts.shape)
    kind = np.where(np.tril(np.ones((length, length), bool)), kind, kind.transpose(0, 2, 1))
    neighbours, kinds = _neighbour_lists(contacts, kind)
    zero = np.zeros((1, states, states), np.float32)
    table = settings.coupling * np.concatenate((zero, interactions())).reshape(-1, states)
    preference = settings.preference * rng.standard_normal((count, length, states), np.float32)

    def sweep(letters: np.ndarray) -> None:
        """One new letter for every site of (F, S, L), given all others; in place."""
        for site in rng.permutation(length):
            field = np.repeat(preference[:, None, site], letters.shape[1], axis=1)
            for other, its in zip(neighbours[:, site].T, kinds[:, site].T, strict=True):
                if its.any():
                    beside = letters[np.arange(count), :, other]
                    field += table[its[:, None] * states + beside]
            np.exp(field - field.max(axis=2, keepdims=True), out=field)
            field.cumsum(axis=2, out=field)
            draw = rng.random(field.shape[:2], np.float32) * field[..., -1]
            letters[:, :, site] = np.minimum((field < draw[..., None]).sum(axis=2), states - 1)

    letters = rng.integers(0, states, (count, min(settings.clades, rows), length))
    for _ in range(settings.sweeps):
        sweep(letters)
    letters = letters[:, rng.integers(0, letters.shape[1], rows)]
    for _ in range(max(1, settings.sweeps // 2)):
        sweep(letters)
    letters[rng.random(letters.shape) < settings.gaps] = GAP
    return letters


def _neighbour_lists(contacts: np.ndarray, kind: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """For each residue the others that it touches and the kinds of their couplings, (F, L, K), with
    kind 0 where it touches fewer than K.
    """
    most = int(contacts.sum(axis=2).max())
    order = np.argsort(~contacts, axis=2, kind="stable")[:, :, :most]
    touching = np.take_along_axis(contacts, order, axis=2)
    return order, np.where(touching, np.take_along_axis(kind, order, axis=2), 0)


def make(settings: FamilySettings, seed: int) -> dict[str, Families]:
    """Families of all splits. Of one fold they are all in one split; see `split_of`. Raises
    UsageError for so few folds that a split has none.
    """
    rng = np.random.default_rng(seed)
    folds = contacts_of(chains(settings.folds, settings.length, rng))
    contacts = folds.repeat(settings.per_fold, axis=0)
    split = split_of(contacts)
    msa = sample(contacts, settings, settings.rows, rng)
    for number, name in enumerate(SPLITS):
        if not (split == number).any():
            raise UsageError(
                f"families.folds={settings.folds} leaves no fold for the {name} split; try "
                f"families.folds={max(60, 2 * settings.folds)}"
            )
    return {
        name: Families(msa[split == number], contacts[split == number])
        for number, name in enumerate(SPLITS)
    }
