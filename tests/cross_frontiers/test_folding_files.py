"""Protein files as they are: alternative places, several models, missing atoms, insertions."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from cross_frontiers.folding import pdb
from labkit import UsageError
from labkit.data import ProteinData, load
from labkit.data.sets import proteins

REAL = Path(os.environ.get("LAB_DATA", "data")) / "proteins" / "pdb"
needs_data = pytest.mark.skipif(not REAL.is_dir(), reason="no proteins in LAB_DATA")


def line(atom: str, number: int, x: float = 0.0, **other: str) -> str:
    kind, chain, alternative = (
        other.get(k, d) for k, d in (("kind", "ALA"), ("chain", "A"), ("alt", " "))
    )
    occupancy, insertion = other.get("occupancy", "  1.00"), other.get("insertion", " ")
    record = other.get("record", "ATOM  ")
    return (
        f"{record}{1:5d}  {atom:<3s}{alternative}{kind} {chain}{number:4d}{insertion}   "
        f"{x:8.3f}{number:8.3f}{0:8.3f}{occupancy}{0:6.2f}"
    )


def residue(number: int, **other: str) -> list[str]:
    return [line(atom, number, x, **other) for atom, x in (("N", -1.0), ("CA", 0.0), ("C", 1.0))]


def text(*parts: list[str]) -> str:
    return "\n".join(line for part in parts for line in part)


PLAIN = [residue(n, kind=kind) for n, kind in ((1, "ALA"), (2, "TRP"), (3, "GLY"))]


def test_a_chain_is_read() -> None:
    found = pdb.read_chain(
        text(*PLAIN, ["TER", line("CA", 9, record="HETATM", kind="HOH")]), "1XYZ"
    )
    assert found.name == "1XYZ:A"
    assert "".join(pdb.LETTERS[t] for t in found.tokens) == "AWG"
    assert found.index.tolist() == [1, 2, 3]
    assert found.atoms.shape == (3, 3, 3)
    assert found.atoms[1].tolist() == [[-1, 2, 0], [0, 2, 0], [1, 2, 0]]
    assert found.warnings == []


def test_chains_by_their_letter() -> None:
    both = text(*PLAIN, *(residue(n, chain="B", kind="SER") for n in range(5, 9)))
    assert len(pdb.read_chain(both, "1XYZ").tokens) == 3
    assert pdb.read_chain(both, "1XYZ", "B").index.tolist() == [5, 6, 7, 8]
    with pytest.raises(UsageError, match=r"has no chain C; it has A, B\. Type 1XYZ:A"):
        pdb.read_chain(both, "1XYZ", "C")


def test_residues_with_missing_atoms_are_left_out_and_told() -> None:
    found = pdb.read_chain(text(*PLAIN, residue(4)[:2], residue(5), residue(6)[1:2]), "1XYZ")
    assert found.index.tolist() == [1, 2, 3, 5]
    assert found.warnings == [
        "1XYZ:A: residue 4 lacks C; left out", "1XYZ:A: residue 6 lacks N, C; left out",
    ]  # fmt: skip


def test_of_alternative_places_the_most_occupied_counts() -> None:
    both = [
        line("CA", 2, 5.0, alt="A", occupancy="  0.40"),
        line("CA", 2, 6.0, alt="B", occupancy="  0.60"),
    ]
    equal = [
        line("N", 2, 7.0, alt="A", occupancy="  0.50"),
        line("N", 2, 8.0, alt="B", occupancy="  0.50"),
    ]
    found = pdb.read_chain(text(PLAIN[0], both, equal, residue(2)[2:], PLAIN[2]), "1XYZ")
    assert found.atoms[1, :, 0].tolist() == [7, 6, 1]


def test_of_several_models_the_first_counts() -> None:
    two = text(["MODEL        1"], *PLAIN, ["ENDMDL", "MODEL        2"], residue(9), ["ENDMDL"])
    assert pdb.read_chain(two, "1XYZ").index.tolist() == [1, 2, 3]


def test_insertion_codes_and_selenomethionine() -> None:
    odd = [residue(3, insertion="A"), residue(4, record="HETATM", kind="MSE")]
    found = pdb.read_chain(text(*PLAIN, *odd), "1XYZ")
    assert found.index.tolist() == [1, 2, 3, 3, 4]
    assert pdb.LETTERS[found.tokens[-1]] == "M"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "there is no N, CA or C atom"),
        ("hello\nworld", "is it a PDB file"),
        (text(*PLAIN[:2]), "has 2 residues with N, CA and C; 3 are needed"),
        (text(*PLAIN, residue(4, kind="UNK")), "residue 4 is 'UNK', which is none of the 20"),
        (text(*PLAIN)[:-30] + "   1.0x0", "line 9 is no ATOM line in PDB format"),
        (
            text(*PLAIN).replace("   0.000", "     nan"),
            "line 1 has a coordinate that is not finite",
        ),
    ],
)
def test_files_that_cannot_be_read(content: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        pdb.read_chain(content, "1XYZ")


def test_alignments_without_their_insertions() -> None:
    found = pdb.read_a3m(">one\nARN\nD-\n>two\nAaa.RXDgG\n", "mine")
    assert found.tolist() == [[0, 1, 2, 3, 20], [0, 1, 20, 3, 7]]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (">one\nARND\n", "mine has 1 row: contacts show in how columns vary together"),
        ("", "mine has 0 row"),
        ("ARND\n", "first line must begin with >"),
        (">a\nARND\n>b\nAR\n", "row 2 has 2 columns, the first 4"),
        (">a\nARND\n>b\nAR1D\n", "row 2 has '1', which is no amino acid"),
    ],
)
def test_alignments_that_cannot_be_read(content: str, said: str) -> None:
    with pytest.raises(UsageError, match=said):
        pdb.read_a3m(content, "mine")


def test_helices_made_here_have_the_shape_of_helices() -> None:
    """3.6 residues and 5.4 Å a turn: CA atoms 5.0 to 5.2 Å apart at distance 3, 6.2 at 4."""
    made = load("helices", kind=ProteinData)
    for name, length in (("H001", 25), ("H002", 29), ("H003", 37)):
        chain = pdb.read_chain(made.structures[name], name)
        assert len(chain.tokens) == length
        ca = chain.atoms[:, 1]
        np.testing.assert_allclose(np.linalg.norm(np.diff(ca, axis=0), axis=1), 3.8, atol=0.03)
        first = ca[:8]
        for apart, expected in ((3, 5.0), (4, 6.2)):
            distance = np.linalg.norm(first[apart:] - first[:-apart], axis=1)
            np.testing.assert_allclose(distance, expected, atol=0.3)
    torsion = proteins.backbone([-57] * 5, [-47] * 5)
    assert torsion.shape == (5, 3, 3)
    np.testing.assert_allclose(np.linalg.norm(torsion[1:, 0] - torsion[:-1, 2], axis=1), 1.329)


def test_torsion_of_a_placed_atom() -> None:
    a, b, c = np.array([[1.0, 1, 0], [1, 0, 0], [0, 0, 0]])
    for torsion in (-120.0, 0.0, 35.0, 180.0):
        d = proteins.place_atom(a, b, c, 2.0, 100.0, torsion)
        assert np.linalg.norm(d - c) == pytest.approx(2)
        cos = (d - c) @ (b - c) / 2
        assert np.degrees(np.arccos(cos)) == pytest.approx(100)
        n1, n2 = np.cross(b - a, c - b), np.cross(c - b, d - c)
        sign = np.sign(np.dot(np.cross(n1, n2), c - b)) or 1
        found = sign * np.degrees(
            np.arccos(np.clip(n1 @ n2 / np.linalg.norm(n1) / np.linalg.norm(n2), -1, 1))
        )
        assert abs(found) == pytest.approx(abs(torsion), abs=1e-4)
        assert abs(torsion) in (0, 180) or np.sign(found) == np.sign(torsion)


@needs_data
def test_real_structures_are_biopythons() -> None:
    parser = pytest.importorskip("Bio.PDB").PDBParser(QUIET=True)
    for file in sorted(REAL.glob("*.pdb")):
        ours = pdb.read_chain(file.read_text(), file.stem)
        chain = next(iter(next(iter(parser.get_structure(file.stem, file)))))
        theirs = [
            (r.id[1], np.stack([r[atom].coord for atom in pdb.ATOMS]))
            for r in chain
            if r.id[0] in (" ", "H_MSE") and all(atom in r for atom in pdb.ATOMS)
        ]
        assert ours.index.tolist() == [number for number, _ in theirs]
        gap = np.abs(ours.atoms - np.stack([atoms for _, atoms in theirs])).max(axis=(1, 2))
        assert (gap < 1e-3).mean() > 0.97  # of equally occupied places Biopython takes the last


@needs_data
def test_real_alignments() -> None:
    found = load("proteins", kind=ProteinData)
    shapes = {n: pdb.read_a3m(t, n).shape for n, t in found.alignments.items()}
    assert shapes == {"1a3a": (1024, 145), "1xcr": (588, 313), "5ahw": (1024, 125)}
