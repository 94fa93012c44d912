"""Protein sets.

    proteins   entries of the Protein Data Bank and alignments, from a data folder:
               proteins/pdb/*.pdb and proteins/msa/*.a3m or *.a3m.gz
    helices    three proteins made here: helices joined by loops, without side chains

A backbone is built from its torsion angles φ, ψ, ω with ideal bonds (Engh and Huber 1991): each
atom's place follows from the three before it (Parsons et al. 2005, NeRF, section 2).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from labkit.data.files import decode, unzip
from labkit.data.kinds import DataError
from labkit.data.proteins import ProteinData
from labkit.data.sets.images import source_of

PROTEINS_URL = "https://files.rcsb.org"
FOLDER = "proteins"
BONDS = {"N": 1.329, "CA": 1.458, "C": 1.525}
"""Å from the atom before it: C to N, N to CA, CA to C."""
ANGLES = {"N": 116.2, "CA": 121.7, "C": 111.2}
"""Degrees at the atom before it: CA-C-N, C-N-CA, N-CA-C."""
HELIX = (-57.0, -47.0)
"""φ and ψ of an α helix, in degrees."""
CLOSEST, WIDEST = 4.2, 12.0
"""Of CA atoms that are not neighbours, the least distance; the largest radius of gyration; Å."""
NAMES = dict(zip("ARNDCQEGHILKMFPSTWYV", (
    "ALA ARG ASN ASP CYS GLN GLU GLY HIS ILE LEU LYS MET PHE PRO SER THR TRP TYR VAL"
).split(), strict=True))  # fmt: skip


def read_proteins(folder: Path) -> ProteinData | None:
    """Every structure and alignment below `folder`; None when no structure is there."""
    files = sorted((folder / FOLDER / "pdb").glob("*.pdb"))
    if not files:
        return None
    structures = {file.stem.upper(): decode(file.read_bytes(), file) for file in files}
    alignments = {}
    for file in sorted((folder / FOLDER / "msa").glob("*.a3m*")):
        raw = unzip(file) if file.suffix == ".gz" else file.read_bytes()
        alignments[file.name.split("_")[0].split(".")[0]] = decode(raw, file)
    return ProteinData("proteins", source_of(folder), structures, alignments)


def fetch_proteins(folder: Path) -> None:
    """Raises DataError: which entries to take is a person's choice."""
    raise DataError(
        f"it is a selection that no address gives; put files such as {PROTEINS_URL}/download/"
        f"1AKI.pdb into {FOLDER}/pdb"
    )


def place_atom(
    a: np.ndarray, b: np.ndarray, c: np.ndarray, bond: float, angle: float, torsion: float
) -> np.ndarray:
    """The atom d after a, b, c, (3,): |cd| = bond; the angle bcd, the torsion abcd in degrees."""
    angle, torsion = np.radians(angle), np.radians(torsion)
    along = (c - b) / np.linalg.norm(c - b)
    normal = np.cross(b - a, along)
    normal /= np.linalg.norm(normal)
    local = (-np.cos(angle), np.sin(angle) * np.cos(torsion), np.sin(angle) * np.sin(torsion))
    axes = np.stack((along, np.cross(normal, along), normal), axis=1)
    return c + bond * axes @ np.array(local)


def backbone(phi: Sequence[float], psi: Sequence[float]) -> np.ndarray:
    """N, CA and C of each residue, (L, 3, 3), Å, from torsions in degrees; every ω is 180.

    φ of the first residue and ψ of the last do not move any of these atoms.
    """
    turn = np.radians(180 - ANGLES["C"])
    atoms = [np.zeros(3), np.array([BONDS["CA"], 0, 0])]
    atoms.append(atoms[1] + BONDS["C"] * np.array([np.cos(turn), np.sin(turn), 0]))
    for i in range(1, len(phi)):
        for name, torsion in (("N", psi[i - 1]), ("CA", 180.0), ("C", phi[i])):
            a, b, c = atoms[-3:]
            atoms.append(place_atom(a, b, c, BONDS[name], ANGLES[name], torsion))
    return np.array(atoms).reshape(-1, 3, 3)


def helices() -> ProteinData:
    """Three proteins H001, H002, H003 of 25 to 37 residues, two or three helices each."""
    rng = np.random.default_rng(0)
    plans = {"H001": (12, 11), "H002": (9, 8, 8), "H003": (13, 11, 9)}
    structures = {}
    for name, plan in plans.items():
        atoms = next(bundle for bundle in _bundles(plan, rng) if _compact(bundle))
        sequence = "".join(rng.choice(list(NAMES), len(atoms)))
        structures[name] = to_pdb(sequence, atoms)
    return ProteinData("helices", "embedded", structures, {})


def _bundles(plan: Sequence[int], rng: np.random.Generator) -> Iterator[np.ndarray]:
    """Backbones with helices of these lengths and two residues of any torsion between them."""
    while True:
        torsions: list[tuple[float, float]] = []
        for length in plan:
            loop = rng.uniform((-150, -60), (-50, 160), (2, 2)) if torsions else np.empty((0, 2))
            torsions += [(float(phi), float(psi)) for phi, psi in loop] + [HELIX] * length
        yield backbone(*zip(*torsions, strict=True))


def _compact(atoms: np.ndarray) -> bool:
    """Whether no two CA atoms clash, and all stand close together."""
    ca = atoms[:, 1]
    distance = np.linalg.norm(ca[:, None] - ca, axis=-1)
    far = np.abs(np.subtract.outer(np.arange(len(ca)), np.arange(len(ca)))) > 2
    radius = np.sqrt(((ca - ca.mean(0)) ** 2).sum(1).mean())
    return bool(distance[far].min() > CLOSEST and radius < WIDEST * (len(ca) / 36) ** (1 / 3))


def to_pdb(sequence: str, atoms: np.ndarray, chain: str = "A") -> str:
    """Lines in PDB format of the atoms N, CA, C, (L, 3, 3)."""
    lines = []
    for i, (letter, residue) in enumerate(zip(sequence, atoms, strict=True)):
        for k, (atom, (x, y, z)) in enumerate(zip(("N", "CA", "C"), residue, strict=True)):
            lines.append(
                f"ATOM  {3 * i + k + 1:5d}  {atom:<3s} {NAMES[letter]} {chain}{i + 1:4d}    "
                f"{x:8.3f}{y:8.3f}{z:8.3f}{1:6.2f}{0:6.2f}          {atom[0]:>2s}"
            )
    return "\n".join([*lines, "END", ""])
