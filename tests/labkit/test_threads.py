"""How threads wait and how many there are: chosen before OpenMP is loaded, unless a person has."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from labkit import course
from labkit.machine import processor, threads
from tests.conftest import ROOT, TOY

OURS = (*threads.OWN, "OMP_NUM_THREADS")


def test_waiting_threads_sleep_and_each_core_has_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(processor, "physical_cores", lambda: 3)
    environment: dict[str, str] = {}
    threads.choose(environment)
    assert environment == {
        "OMP_WAIT_POLICY": "passive",
        "GOMP_SPINCOUNT": str(threads.SPINS),
        "OMP_NUM_THREADS": "3",
    }


@pytest.mark.parametrize(
    ("name", "value"),
    [("OMP_WAIT_POLICY", "active"), ("GOMP_SPINCOUNT", "100"), ("KMP_BLOCKTIME", "1")],
)
def test_a_persons_own_policy_stays(name: str, value: str) -> None:
    environment = {name: value, "OMP_NUM_THREADS": "7"}
    threads.choose(environment)
    assert environment == {name: value, "OMP_NUM_THREADS": "7"}


def displayed(command: list[str], **env: str) -> str:
    """What libgomp itself says that it read as it was loaded, and the command's own output."""
    kept = {k: v for k, v in os.environ.items() if k not in OURS and not k.startswith("LAB_")}
    environment = {**kept, "PYTHONPATH": str(ROOT), "OMP_DISPLAY_ENV": "VERBOSE", **env}
    done = subprocess.run(
        [sys.executable, *command], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    return done.stdout + done.stderr


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux's")
@pytest.mark.parametrize(
    ("env", "spins"),
    [
        ({}, str(threads.SPINS)),
        ({"OMP_WAIT_POLICY": "passive"}, "0"),
        ({"GOMP_SPINCOUNT": "77"}, "77"),
    ],
)
def test_openmp_reads_what_was_chosen(env: dict[str, str], spins: str) -> None:
    """PyTorch's own libgomp, loaded without the rest of it."""
    code = (
        "import ctypes, importlib.util, pathlib\n"
        "from labkit.machine import threads\n"
        "threads.choose()\n"
        "torch = pathlib.Path(importlib.util.find_spec('torch').origin).parent\n"
        "(library,) = torch.glob('lib/libgomp*.so*')\n"
        "ctypes.CDLL(str(library))"
    )
    said = displayed(["-c", code], OMP_NUM_THREADS="1", **env)
    assert f"GOMP_SPINCOUNT = '{spins}'" in said
    assert "OMP_NUM_THREADS = '1'" in said


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux's")
def test_a_run_chooses_before_openmp_is_loaded(tmp_path: Path) -> None:
    home = {"LAB_HOME": str(tmp_path), "LAB_OFFLINE": "1"}
    said = displayed([TOY, "+size=smoke", "max_steps=2"], OMP_NUM_THREADS="1", **home)
    assert f"GOMP_SPINCOUNT = '{threads.SPINS}'" in said
    assert list(tmp_path.glob("runs/toy/smoke/*"))


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_no_week_loads_openmp_before_its_command_line_is_read() -> None:
    """Where the module of a week loads it, the choice would come too late."""
    modules = [f"{unit.module}.train" for unit in course.load().units if unit.built]
    assert modules
    code = (
        "import importlib, json\n"
        f"for name in {modules}:\n"
        "    importlib.import_module(name)\n"
        "    loaded = 'libgomp' in open('/proc/self/maps').read()\n"
        "    assert not loaded, name\n"
        "from labkit.machine import threads; import torch\n"
        "print(json.dumps('libgomp' in open('/proc/self/maps').read()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        env={**os.environ, "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout), "and here it is what PyTorch brings"
