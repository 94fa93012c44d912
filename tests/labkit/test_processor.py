"""What a processor can do, from the names that Linux, PyTorch and NumPy have for it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit.machine import processor

ROOT = Path(__file__).resolve().parent.parent.parent

ZEN4 = "sse2 avx avx2 avx512f avx512_bf16".split()
NOTHING: dict[str, str] = {}


@pytest.mark.parametrize(
    ("features", "expected"),
    [
        (ZEN4, "bf16"),
        ([*ZEN4, "amx_tile", "amx_bf16"], "amx"),
        (["sse2", "avx", "avx2", "avx512f", "amx_tile"], "avx512"),
        (["sse2", "avx", "avx2", "fma"], "avx2"),
        (["sse2", "avx"], "avx"),
        (["sse2"], "sse"),
        (["AVX512F", "AVX2", "SSE2"], "avx512"),  # NumPy's spelling
        (["avx512_f", "avx2"], "avx512"),  # and PyTorch's
        (["fp", "asimd"], "neon"),
        (["fp", "asimd", "sve"], "sve"),
        (["fp", "asimd", "sve", "bf16"], "bf16"),
        (["weird"], None),
    ],
)
def test_the_best_instruction_set_is_named(features: list[str], expected: str | None) -> None:
    assert processor.instruction_set(features, NOTHING) == expected


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({"ONEDNN_MAX_CPU_ISA": "AVX2"}, "avx2"),
        ({"ONEDNN_MAX_CPU_ISA": "avx512_core"}, "avx512"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_VNNI"}, "avx512"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_BF16"}, "bf16"),
        ({"ONEDNN_MAX_CPU_ISA": "AVX512_CORE_AMX"}, "bf16"),  # no more than there is
        ({"ONEDNN_MAX_CPU_ISA": "DEFAULT"}, "bf16"),
        ({"DNNL_MAX_CPU_ISA": "SSE41"}, "sse"),
        ({"ATEN_CPU_CAPABILITY": "avx2"}, "avx2"),
        ({"ATEN_CPU_CAPABILITY": "avx512"}, "bf16"),
        ({"ATEN_CPU_CAPABILITY": "avx2", "ONEDNN_MAX_CPU_ISA": "AVX"}, "avx"),
    ],
)
def test_libraries_can_be_held_back(environment: dict[str, str], expected: str) -> None:
    assert processor.instruction_set(ZEN4, environment) == expected
    assert processor.instruction_set(["asimd"], environment) == "neon"


def test_bf16_is_not_used_where_onednn_emulates_it() -> None:
    """PyTorch's own list of capabilities goes on to name avx512_bf16 then."""
    code = (
        "import torch; from labkit.machine.device import describe, resolve_precision\n"
        "print(resolve_precision('auto', torch.device('cpu')), describe('cpu')['instructions'])"
    )
    held_back = {"ONEDNN_MAX_CPU_ISA": "SSE41", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, **held_back}, capture_output=True, text=True, check=True,
    )  # fmt: skip
    precision, instructions = done.stdout.split()
    assert precision == "fp32"
    assert instructions in ("sse", "neon", "sve")


def fake_cores(folder: Path, cores: list[tuple[int, int]]) -> Path:
    for number, (package, core) in enumerate(cores):
        topology = folder / f"cpu{number}" / "topology"
        topology.mkdir(parents=True)
        (topology / "physical_package_id").write_text(f"{package}\n")
        (topology / "core_id").write_text(f"{core}\n")
    return folder


def test_two_threads_of_a_core_are_one_physical_core(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system = fake_cores(tmp_path, [(0, 0), (0, 0), (0, 1), (0, 1), (1, 0), (1, 0)])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3, 4, 5}, raising=False)
    assert (processor.logical_cores(), processor.physical_cores(system)) == (6, 3)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 5}, raising=False)
    assert (processor.logical_cores(), processor.physical_cores(system)) == (3, 2)
    assert processor.physical_cores(tmp_path / "nothing") == 3


def test_frequency_comes_from_wherever_it_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    info = "model name\t: Some(R) CPU{} \ncpu MHz\t\t: 2596.136\n"
    monkeypatch.setattr(processor, "_cpuinfo", lambda: info.format(" X1"))
    assert processor.gigahertz(tmp_path) == 2.6
    monkeypatch.setattr(processor, "_cpuinfo", lambda: info.format(" X1 @ 3.20GHz"))
    assert processor.name() == "Some(R) CPU X1 @ 3.20GHz"
    assert processor.gigahertz(tmp_path) == 3.2
    (tmp_path / "cpu0" / "cpufreq").mkdir(parents=True)
    (tmp_path / "cpu0" / "cpufreq" / "cpuinfo_max_freq").write_text("4800000\n")
    assert processor.gigahertz(tmp_path) == 4.8
    monkeypatch.setattr(processor, "_cpuinfo", lambda: "")
    assert processor.gigahertz(tmp_path / "nothing") is None
