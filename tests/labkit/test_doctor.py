"""`lab doctor`: it must find what is wrong, and must not find what is not."""

from __future__ import annotations

import math
import shutil
import sys
import time
from functools import cache
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from labkit import data, doctor, paths
from labkit.data import fetch
from labkit.doctor import Finding
from labkit.machine import device


def found(check: Any) -> dict[str, Finding]:
    """Findings of one check by name."""
    return {finding.check: finding for finding in check()}


@pytest.fixture
def clone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A root with a project of two dependencies, one of them not installed."""
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / "pyproject.toml").write_text(
        '[project]\nrequires-python = ">=3.11,<3.14"\n'
        'dependencies = ["numpy>=2.0", "PyYAML>=6", "rich[jupyter]>=13,<99"]\n'
    )
    return tmp_path


def pins(clone: Path, **versions: str) -> None:
    lines = ["# tested together", *(f"{name}=={v}" for name, v in versions.items())]
    (clone / "constraints.txt").write_text("\n".join(lines))


honest = cache(doctor.losses)
"""The real one, computed once: several tests bend what it returns."""

INSTALLED = {name: metadata.version(name) for name in ("numpy", "PyYAML", "rich")}


def test_this_python_is_fine_and_another_is_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert found(doctor.check_python)["python"].status == "ok"
    for version in ((3, 10, 9), (3, 14, 0)):
        monkeypatch.setattr(sys, "version_info", version)
        finding = found(doctor.check_python)["python"]
        assert finding.status == "broken"
        assert ".".join(map(str, version)) in finding.text
        assert ">=3.11" in finding.text


def test_packages_as_pinned(clone: Path) -> None:
    pins(clone, **INSTALLED)
    assert found(doctor.check_packages)["packages"].status == "ok"


def test_a_local_version_is_no_difference(clone: Path) -> None:
    pins(clone, **{**INSTALLED, "torch": torch.__version__.partition("+")[0] + "+cpu"})
    assert found(doctor.check_packages)["packages"].status == "ok"


def test_another_version_is_named(clone: Path) -> None:
    pins(clone, **{**INSTALLED, "numpy": "1.0.0"})
    finding = found(doctor.check_packages)["packages"]
    assert finding.status == "warning"
    assert f"numpy {INSTALLED['numpy']} (tested with 1.0.0)" in finding.text
    assert "rich" not in finding.text


def test_a_missing_dependency_is_broken_a_missing_extra_is_not(clone: Path) -> None:
    pins(clone, **INSTALLED, no_such_extra="1.0")
    assert found(doctor.check_packages)["packages"].status == "ok"
    project = clone / "pyproject.toml"
    project.write_text(project.read_text().replace('"numpy', '"No.Such_Package", "numpy'))
    finding = found(doctor.check_packages)["packages"]
    assert finding.status == "broken"
    assert "no-such-package" in finding.text
    assert "lab setup" in finding.text


def test_without_constraints_nothing_is_claimed(clone: Path) -> None:
    assert found(doctor.check_packages)["packages"].status == "warning"


def test_data_folder_that_is_not_there(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "nowhere"))
    finding = found(doctor.check_data)["LAB_DATA"]
    assert finding.status == "broken"
    assert "nowhere" in finding.text
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    assert found(doctor.check_data)["LAB_DATA"].status == "ok"


def test_datasets_are_listed_by_where_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    sources = {"cifar10": None, "digits": "embedded", "mnist": "LAB_DATA", "wikitext2": "data/"}
    monkeypatch.setattr(data, "available", lambda: sources)
    assert found(doctor.check_data)["datasets"].text == (
        "here: mnist, wikitext2; embedded: digits; to be downloaded: cifar10"
    )


def test_a_damaged_dataset_is_broken(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "tinyshakespeare").mkdir()
    (tmp_path / "tinyshakespeare" / "input.txt").write_text("To be, or not to be\n" * 100)
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    for name in ("python", "packages", "disk", "network", "devices", "arithmetic"):
        monkeypatch.setattr(doctor, f"check_{name}", lambda: iter(()))
    findings = {finding.check: finding for finding in doctor.examine()}
    assert findings["LAB_DATA"].status == "ok"
    assert findings["tinyshakespeare"].status == "broken"
    assert "input.txt" in findings["tinyshakespeare"].text
    assert "tinyshakespeare" not in findings["datasets"].text


@pytest.mark.parametrize("under", ["/proc/lab", "file/lab"])
def test_an_output_folder_that_cannot_be_written(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, under: str
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("LAB_HOME", str(tmp_path / under))
    finding = found(doctor.check_disk)["output"]
    assert finding.status == "broken"
    assert "LAB_HOME" in finding.text
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "to" / "be" / "made"))
    assert found(doctor.check_disk)["output"].status == "ok"
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize(("free", "status"), [(0.5, "broken"), (5, "warning"), (50, "ok")])
def test_little_disk(monkeypatch: pytest.MonkeyPatch, free: float, status: str) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free * 1e9))
    assert found(doctor.check_disk)["disk"].status == status


def test_hosts_are_asked_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def silent(url: str) -> bool:
        time.sleep(0.3)
        return "huggingface" in url

    monkeypatch.setattr(fetch, "offline", lambda: False)
    monkeypatch.setattr(fetch, "reachable", silent)
    start = time.perf_counter()
    finding = found(doctor.check_network)["network"]
    assert time.perf_counter() - start < 0.9
    assert finding.status == "warning", "local data still works"
    assert "amazonaws" in finding.text
    assert "huggingface" not in finding.text
    monkeypatch.setattr(fetch, "reachable", lambda url: True)
    assert found(doctor.check_network)["network"].status == "ok"


def test_offline_asks_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.setattr(fetch, "reachable", lambda url: pytest.fail("asked"))
    assert found(doctor.check_network)["network"].status == "ok"


def test_a_missing_accelerator_is_said_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(device, "accelerator", lambda: None)
    findings = {**found(doctor.check_devices), **found(doctor.check_arithmetic)}
    assert findings["accelerator"].text.startswith("none")
    assert "no accelerator" in findings["divergence"].text
    assert {finding.status for finding in findings.values()} == {"ok"}


def test_losses_differ_as_much_as_the_precision_says() -> None:
    double = doctor.losses("cpu", torch.float64)
    assert double[0] == pytest.approx(math.log(10), rel=0.2), "ten classes, nothing learned yet"
    assert double[-1] < double[0]
    assert double == doctor.losses("cpu", torch.float64)
    fp32 = doctor.divergence(doctor.losses("cpu", torch.float32), double)
    bf16 = doctor.divergence(doctor.losses("cpu", torch.float32, autocast=True), double)
    # Rounding errors are 2^-24 and 2^-9 relative; a few hundred operations multiply them.
    assert 2**-28 < fp32 < 2**-24 * 1000
    assert 2**-14 < bf16 < 2**-9 * 30


def test_losses_do_not_disturb_the_global_generator() -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    doctor.losses("cpu", torch.float32)
    assert torch.equal(torch.rand(3), expected)


def test_divergence_is_the_largest_relative_difference() -> None:
    assert doctor.divergence([1.0, 2.0, 4.0], [1.0, 2.5, 4.0]) == pytest.approx(0.2)
    assert doctor.divergence([1.0, math.nan], [1.0, 2.0]) == math.inf
    assert doctor.divergence([math.nan, 1.0], [1.0, 1.0]) == math.inf


@pytest.mark.parametrize(
    ("error", "status"), [(1e-7, "ok"), (1e-4, "ok"), (0.05, "broken"), (math.nan, "broken")]
)
def test_an_accelerator_that_computes_otherwise(
    monkeypatch: pytest.MonkeyPatch, error: float, status: str
) -> None:
    def losses(kind: str, dtype: torch.dtype, autocast: bool = False) -> list[float]:
        series = honest("cpu", dtype, autocast)
        return [loss * (1 + error) for loss in series] if kind == "cuda" else series

    monkeypatch.setattr(device, "accelerator", lambda: "cuda")
    monkeypatch.setattr(doctor, "losses", losses)
    finding = found(doctor.check_arithmetic)["divergence"]
    assert finding.status == status
    assert ("device=cpu" in finding.text) == (status == "broken")


def test_a_cpu_that_computes_wrongly(monkeypatch: pytest.MonkeyPatch) -> None:
    def losses(kind: str, dtype: torch.dtype, autocast: bool = False) -> list[float]:
        series = honest(kind, dtype, autocast)
        return series if dtype == torch.float64 else [*series[:-1], series[-1] * 1.001]

    monkeypatch.setattr(doctor, "losses", losses)
    assert found(doctor.check_arithmetic)["cpu arithmetic"].status == "broken"


def test_exit_code_and_report(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    healthy = [Finding("disk", "ok", "50 GB free"), Finding("packages", "warning", "[old] numpy")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(healthy))
    assert doctor.doctor() == 0
    said = capsys.readouterr().out
    assert "[old] numpy" in said
    assert "ready; type: python -m diffusion.train +size=tiny" in said
    sick = [*healthy, Finding("output", "broken", "no")]
    monkeypatch.setattr(doctor, "examine", lambda: iter(sick))
    assert doctor.doctor() == 1
    assert "broken: output" in capsys.readouterr().out


def test_a_check_that_fails_itself_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def check_disk() -> Any:
        raise RuntimeError("no such thing as a disk")

    for name in ("python", "packages", "data", "network", "devices", "arithmetic"):
        monkeypatch.setattr(doctor, f"check_{name}", lambda: iter(()))
    monkeypatch.setattr(doctor, "check_disk", check_disk)
    assert list(doctor.examine()) == [
        Finding("disk", "broken", "RuntimeError: no such thing as a disk")
    ]
