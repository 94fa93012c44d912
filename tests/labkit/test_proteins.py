"""Sets of proteins: what is read from a folder, and what is refused."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from labkit.data import DataError, ProteinData, load, registry
from labkit.data.sets import proteins

ATOM = "ATOM      1  CA  ALA A   1       0.000   2.000   0.000  1.00  0.00"


def test_structures_and_alignments_of_a_folder(tmp_path: Path) -> None:
    assert proteins.read_proteins(tmp_path) is None
    for folder in ("pdb", "msa"):
        (tmp_path / "proteins" / folder).mkdir(parents=True)
    assert proteins.read_proteins(tmp_path) is None
    (tmp_path / "proteins" / "pdb" / "2xyz.pdb").write_text(ATOM)
    (tmp_path / "proteins" / "pdb" / "1ABC.pdb").write_text(ATOM)
    (tmp_path / "proteins" / "msa" / "1abc_1_A.a3m.gz").write_bytes(gzip.compress(b">a\nAR\n"))
    (tmp_path / "proteins" / "msa" / "other.a3m").write_text(">a\nND\n")
    found = proteins.read_proteins(tmp_path)
    assert found is not None
    found.check()
    assert list(found.structures) == ["1ABC", "2XYZ"]
    assert found.alignments == {"1abc": ">a\nAR\n", "other": ">a\nND\n"}
    assert found.sizes() == {"structures": 2, "alignments": 2}
    other = ProteinData("proteins", "", found.structures, {"1abc": ">a\nAR\n"})
    assert other.digest() != found.digest()
    (tmp_path / "proteins" / "msa" / "1abc_1_A.a3m.gz").write_bytes(b"cut")
    with pytest.raises(DataError, match="cut short or damaged"):
        proteins.read_proteins(tmp_path)


def test_what_is_no_structure_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="its structures split is empty"):
        ProteinData("mine", "test", {}, {}).check()
    with pytest.raises(DataError, match="entry 1ABC has no ATOM line"):
        ProteinData("mine", "test", {"1ABC": "<html>"}, {}).check()
    with pytest.raises(DataError, match=r"1AKI\.pdb into proteins/pdb"):
        proteins.fetch_proteins(tmp_path)


def test_helices_are_the_same_everywhere() -> None:
    registry._load.cache_clear()
    found = load("helices", kind=ProteinData)
    assert found.source == "embedded"
    assert found.sizes() == {"structures": 3, "alignments": 0}
    sequence = "".join(
        line[17:20] + " " for line in found.structures["H001"].splitlines() if line[13:15] == "CA"
    )
    assert sequence.count(" ") == 25
    again = proteins.to_pdb("AG", proteins.backbone([-57, -60], [-47, 100]), "B")
    assert again.splitlines()[3].startswith("ATOM      4  N   GLY B   2    ")
