"""`processes=2`: PyTorch's launcher around a week, its exit codes, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from labkit.errors import RunFailed, UsageError
from labkit.machine import ranks
from labkit.run import several
from tests.conftest import ROOT, Lab

WORDS = (
    "+size=smoke", "batch_size=4", "evaluations=1", "eval_tokens=200", "sample_length=4",
    "prompts=[the]",
)  # fmt: skip


def begin(lab: Lab, *words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "pretraining.train", *WORDS, *words, "processes=2"],
        env={**lab.env, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}, cwd=lab.home, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
    )  # fmt: skip


def test_ctrl_c_saves_and_both_processes_resume(lab_run: Lab) -> None:
    """Stopped in the middle, resumed to the end; the exit codes are those of a run."""
    process = begin(lab_run, "steps=100000", "checkpoint_seconds=0.2")
    end = time.monotonic() + 120
    while not list(lab_run.home.glob("runs/*/*/*/checkpoint/*.safetensors")):
        assert time.monotonic() < end
        assert process.poll() is None, process.communicate()[0]
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=100)
    assert process.returncode == 130, said
    (folder,) = (path.parent for path in lab_run.home.glob("runs/*/*/*/.hydra"))
    record = json.loads((folder / "result.json").read_text())
    assert (record["ended"], record["processes"]) == ("interrupted", 2)
    assert "Traceback" not in said
    assert "processes" not in record["config"]


def refused(toy: Any, *words: str) -> int:
    code: int = toy.main(["+size=smoke", *words])
    return code


def test_what_is_refused(
    toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert refused(toy, "-m", "processes=2", "seed=1,2") == 2
    assert "leave out -m or processes=" in capsys.readouterr().err
    monkeypatch.setattr(toy, "program", dataclasses.replace(toy.program, distributed=False))
    assert refused(toy, "processes=2") == 2
    assert "trains in one process" in capsys.readouterr().err


def test_processes_and_torchrun_must_agree(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not several.wanted(toy.program, 2)
    assert not several.wanted(toy.program, 1)
    with pytest.raises(UsageError, match="torchrun started 2"):
        several.wanted(toy.program, 4)


def test_more_processes_than_gpus_are_refused(toy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(UsageError, match=r"only 2 GPUs here.*try processes=2"):
        several.launch(toy.program, 3, [])


def test_rank_0_does_it_once_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """With what it raised; alone, nothing is exchanged."""
    calls: list[int] = []

    def work() -> str:
        calls.append(ranks.rank())
        return "done"

    assert ranks.once(work) == "done"
    box: list[Any] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setattr(ranks, "broadcast", lambda value: box[0] if box else value)
    assert ranks.once(work) == "done"
    assert calls == [0, 0]
    monkeypatch.setenv("RANK", "1")
    box[:] = [("from 0", None)]
    assert ranks.once(work) == "from 0"
    box[:] = [(None, RunFailed("it failed there"))]
    with pytest.raises(RunFailed, match="it failed there"):
        ranks.once(work)
    assert calls == [0, 0], "rank 1 did it, too"


def test_a_prerequisite_is_a_run_of_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from labkit.machine import signals

    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("KEPT", "1")
    file = tmp_path / "seen"
    names = ("RANK", "WORLD_SIZE", "KEPT")
    code = f"import os; open({str(file)!r}, 'w').write(str([*map(os.environ.get, {names})]))"
    assert signals.finish([sys.executable, "-c", code]) == 0
    assert file.read_text() == "[None, None, '1']"
