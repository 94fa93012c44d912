"""Reading protein files: structures in PDB format, alignments in A3M format.

PDB: the columns of ATOM lines, wwPDB format 3.3, "Coordinate Section". A3M: aligned sequences in
FASTA; small letters and dots are insertions, which have no column (HH-suite manual).
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from labkit import UsageError
from labkit.data.sets.proteins import NAMES

LETTERS = "ARNDCQEGHILKMFPSTWYV"
"""Amino acids in the order of AlphaFold; their numbers are 0 to 19."""
GAP = 20
"""The number of a gap, and of an unknown residue."""
TOKENS = 21
"""Amino acids and the gap."""
ATOMS = ("N", "CA", "C")
RESIDUES = {name: letter for letter, name in NAMES.items()} | {"MSE": "M"}
"""One-letter codes; selenomethionine counts as methionine."""
NUMBER = {letter: number for number, letter in enumerate(LETTERS)}


@dataclass(frozen=True)
class Chain:
    """A chain of a structure: the residues whose N, CA and C are all there."""

    name: str
    """Entry and chain, such as 1AKI:A."""
    tokens: np.ndarray
    """Numbers of the amino acids, int64 (L,)."""
    atoms: np.ndarray
    """N, CA and C of each residue, (L, 3, 3), Å."""
    index: np.ndarray
    """Numbers of the residues in the file's numbering, int64 (L,): a jump is a gap."""
    warnings: list[str] = field(default_factory=list)
    """What the file lacked."""


def read_chain(text: str, entry: str, chain: str | None = None) -> Chain:
    """One chain from the text of a PDB file: the first, or that of the letter `chain`.

    Of several models (NMR) the first counts; of alternative places of an atom the most occupied,
    and the first of equal ones. A residue that lacks N, CA or C is left out, and `warnings` says
    so. Raises UsageError for a chain that is not there, an unknown residue, a coordinate that is no
    number, or a chain of fewer than 3 whole residues.
    """
    places: dict[str, dict[tuple[int, str], dict[str, tuple[float, np.ndarray]]]] = {}
    names: dict[tuple[str, int, str], str] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if line.startswith("ENDMDL"):
            break
        is_atom = line.startswith("ATOM  ") or (line.startswith("HETATM") and line[17:20] == "MSE")
        if not is_atom or (atom := line[12:16].strip()) not in ATOMS:
            continue
        try:
            residue = (int(line[22:26]), line[26])
            place = np.array([float(line[at : at + 8]) for at in (30, 38, 46)])
            occupancy = float(line[54:60] or 1)
        except ValueError as error:
            raise UsageError(
                f"{entry}: line {number} is no ATOM line in PDB format ({error})"
            ) from None
        if not np.isfinite(place).all():
            raise UsageError(f"{entry}: line {number} has a coordinate that is not finite")
        letter = line[21].strip() or "A"
        found = places.setdefault(letter, {}).setdefault(residue, {})
        if atom not in found or occupancy > found[atom][0]:
            found[atom] = (occupancy, place)
            names.setdefault((letter, *residue), line[17:20].strip())
    if not places:
        raise UsageError(f"{entry}: there is no N, CA or C atom of a protein; is it a PDB file?")
    letter = chain if chain is not None else next(iter(places))
    if letter not in places:
        raise UsageError(
            f"{entry} has no chain {letter}; it has {', '.join(places)}. Type {entry}:"
            f"{next(iter(places))}"
        )
    return _chain(f"{entry}:{letter}", places[letter], names, letter)


def _chain(
    name: str,
    places: dict[tuple[int, str], dict[str, tuple[float, np.ndarray]]],
    names: dict[tuple[str, int, str], str],
    letter: str,
) -> Chain:
    """The whole residues among `places`, by number and insertion code."""
    tokens, atoms, index, warnings = [], [], [], []
    for residue, found in places.items():
        kind = names[(letter, *residue)]
        if kind not in RESIDUES:
            raise UsageError(
                f"{name}: residue {residue[0]} is {kind!r}, which is none of the 20 amino acids; "
                "choose another chain, or correct the file"
            )
        if missing := [atom for atom in ATOMS if atom not in found]:
            warnings.append(f"{name}: residue {residue[0]} lacks {', '.join(missing)}; left out")
            continue
        tokens.append(NUMBER[RESIDUES[kind]])
        atoms.append(np.stack([found[atom][1] for atom in ATOMS]))
        index.append(residue[0])
    if len(tokens) < 3:
        raise UsageError(f"{name} has {len(tokens)} residues with N, CA and C; 3 are needed")
    return Chain(name, np.array(tokens), np.stack(atoms), np.array(index), warnings)


def read_a3m(text: str, name: str) -> np.ndarray:
    """The alignment (S, L) of numbers from the text of an A3M file, its insertions dropped.

    Unknown residues (X, B, Z, J, U, O) count as gaps. Raises UsageError for fewer than two rows,
    for rows of different length, and for a letter that is none.
    """
    rows: list[str] = []
    for line in text.splitlines():
        if line.startswith(">"):
            rows.append("")
        elif line.strip() and not rows:
            raise UsageError(f"{name} is no A3M file: its first line must begin with >")
        elif line.strip():
            rows[-1] += line.strip()
    kept = ["".join(c for c in row if not c.islower() and c != ".") for row in rows]
    if len(kept) < 2:
        raise UsageError(
            f"{name} has {len(kept)} row: contacts show in how columns vary together, so an "
            "alignment needs at least two, and some hundred to say much"
        )
    for number, row in enumerate(kept, 1):
        if len(row) != len(kept[0]):
            raise UsageError(
                f"{name}: row {number} has {len(row)} columns, the first {len(kept[0])}; without "
                "their small letters, rows of an alignment have the same length"
            )
        if strange := set(row) - set(LETTERS) - set("-XBZJUO"):
            raise UsageError(
                f"{name}: row {number} has {min(strange)!r}, which is no amino acid; it takes "
                f"{LETTERS}, X and -"
            )
    return np.array([[NUMBER.get(letter, GAP) for letter in row] for row in kept])
