"""The notebook is what its source says, and runs from first to last."""

from __future__ import annotations

import ast
import json
import os
from pathlib import Path
from typing import Any

import pytest

from labkit import notebook

ROOT = Path(__file__).resolve().parents[2]


def read() -> dict[str, Any]:
    text = (ROOT / notebook.NOTEBOOK).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def test_it_is_up_to_date() -> None:
    assert notebook.main(["--check"]) == 0


def test_a_stale_notebook_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "pyproject.toml").write_bytes((ROOT / "pyproject.toml").read_bytes())
    (tmp_path / "notebooks").mkdir()
    source = tmp_path / notebook.SOURCE
    source.write_text("# %%\nx = 1\n", encoding="utf-8")
    assert notebook.main(["--check"], tmp_path) == 1
    assert notebook.main([], tmp_path) == 0
    assert notebook.main(["--check"], tmp_path) == 0
    source.write_text("# %%\nx = 2\n", encoding="utf-8")
    assert notebook.main(["--check"], tmp_path) == 1
    assert "python -m labkit.notebook" in capsys.readouterr().err
    assert notebook.main(["--chekc"], tmp_path) == 2


def test_cells() -> None:
    found = notebook.cells("# %% [markdown]\n# # Title\n#\n# Words.\n\n# %%\na = 1\n\nb = 2\n")
    assert [cell["cell_type"] for cell in found] == ["markdown", "code"]
    assert ["".join(cell["source"]) for cell in found] == ["# Title\n\nWords.", "a = 1\n\nb = 2"]
    with pytest.raises(ValueError, match="begin with a cell"):
        notebook.cells("x = 1\n# %%\n")


def test_the_address_stands_in_one_place() -> None:
    assert notebook.repository().startswith("https://")
    assert notebook.repository() in json.dumps(read())
    assert "https://" not in (ROOT / notebook.SOURCE).read_text(encoding="utf-8")


def test_it_is_a_valid_notebook_without_outputs() -> None:
    nbformat = pytest.importorskip("nbformat")
    nbformat.validate(nbformat.read(ROOT / notebook.NOTEBOOK, as_version=4))
    for cell in read()["cells"]:
        if cell["cell_type"] == "code":
            ast.parse("".join(cell["source"]))
            assert cell["outputs"] == []


def test_it_runs_from_first_to_last(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    nbclient = pytest.importorskip("nbclient", reason="pip install nbclient ipykernel")
    nbformat = pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    book = nbformat.read(ROOT / notebook.NOTEBOOK, as_version=4)
    settings = next(cell for cell in book.cells if "SIZE = " in cell.source)
    assert 'SIZE = "tiny"' in settings.source
    settings.source = settings.source.replace('SIZE = "tiny"', 'SIZE = "smoke"')
    settings.source = settings.source.replace(notebook.repository(), "https://invalid.invalid/")
    path = os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])
    for name, value in {
        "LAB_HOME": tmp_path, "LAB_WORKSPACE": tmp_path / "work", "LAB_OFFLINE": 1, "NO_COLOR": 1,
        "PYTHONPATH": path, "IPYTHONDIR": tmp_path, "JUPYTER_CONFIG_DIR": tmp_path,
    }.items():  # fmt: skip
        monkeypatch.setenv(name, str(value))
    client = nbclient.NotebookClient(
        book, timeout=300, kernel_name="python3",
        resources={"metadata": {"path": str(ROOT / "notebooks")}},
    )  # fmt: skip
    client.execute()
    said = {}
    for cell in book.cells:
        if cell.cell_type == "code":
            said[cell.source] = json.dumps(cell.outputs)

    def output(words: str) -> str:
        return next(text for source, text in said.items() if words in source)

    assert "finished" in output("+size={SIZE}")
    assert "image/png" in output("samples")
    (file,) = (tmp_path / "results" / "diffusion").glob("*.json")
    metrics = json.loads(file.read_text(encoding="utf-8"))["metrics"]
    assert all(name in output("newest") for name in metrics)
    assert "cross_entropy" in output('"check"')
    assert (tmp_path / "work" / "neural_networks" / "losses.py").is_file()
    assert (tmp_path / "work").is_dir()
