"""How threads wait and how many there are: chosen before OpenMP is loaded, unless a person has."""

import json
import os
import subprocess
import sys

import pytest

from labkit import course
from labkit.machine import processor, threads
from tests.conftest import ROOT, TOY, Lab

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


def displayed(lab_run: Lab, **env: str) -> str:
    """What libgomp itself says that it read, in a run of the toy week; the run's own output too."""
    lab_run.env = {k: v for k, v in lab_run.env.items() if k not in OURS}
    done = lab_run(TOY, "+size=smoke", "max_steps=2", fresh=True, OMP_DISPLAY_ENV="VERBOSE", **env)
    assert done.returncode == 0, done.output
    return done.output


@pytest.mark.skipif(sys.platform != "linux", reason="libgomp is Linux's")
@pytest.mark.parametrize(
    ("env", "spins"),
    [
        ({}, str(threads.SPINS)),
        ({"OMP_WAIT_POLICY": "passive"}, "0"),
        ({"GOMP_SPINCOUNT": "77"}, "77"),
    ],
)
def test_openmp_has_read_it(lab_run: Lab, env: dict[str, str], spins: str) -> None:
    said = displayed(lab_run, OMP_NUM_THREADS="1", **env)
    assert f"GOMP_SPINCOUNT = '{spins}'" in said
    assert "OMP_NUM_THREADS = '1'" in said


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
