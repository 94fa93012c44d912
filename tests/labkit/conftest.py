"""The made-up week in this process, and weeks made of one function."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from labkit import paths
from labkit.run.entry import Entrypoint, when_finished
from labkit.run.program import Program
from tests.labkit.made_up import WEEK

TOY = str(Path(__file__).parent / "toy" / "week.py")


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    """The made-up week's entrypoint, in this process, writing to a temporary LAB_HOME."""
    import importlib.util

    monkeypatch.setattr(paths, "CONFIGS", paths.CONFIGS)  # the week sets it; undone last of all
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    spec = importlib.util.spec_from_file_location("toy_week", TOY)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "toy_week", module)
    spec.loader.exec_module(module)
    return module.train


@pytest.fixture
def week(toy: Any) -> Callable[..., Entrypoint[Any]]:
    """week(train) is an entrypoint with the made-up week's settings that computes with NumPy."""

    def make(train: Callable[..., None]) -> Entrypoint[Any]:
        program = Program("toy", toy.program.config, train, "numpy", False, False)
        return Entrypoint(program, when_finished)

    return make


@pytest.fixture
def made_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The made-up week on the import path, and LAB_HOME and the temporary folder to watch."""
    package = tmp_path / "code" / "made_up"
    configs = tmp_path / "code" / "configs" / "made_up"
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    for folder in (package, configs / "size", home, scratch):
        folder.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "train.py").write_text(WEEK)
    (configs / "config.yaml").write_text("defaults:\n  - made_up_schema\n  - _self_\n")
    (configs / "size" / "tiny.yaml").write_text("# @package _global_\nsteps: 7\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "code"))
    monkeypatch.setenv("LAB_HOME", str(home))
    monkeypatch.setenv("TMPDIR", str(scratch))
    return tmp_path
