"""A console that goes away ends no run."""

from __future__ import annotations

import errno
import io
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labkit.show import console, tracking

ROOT = Path(__file__).resolve().parents[2]

WEEK = '''
import sys, time
from dataclasses import dataclass
from pathlib import Path
from labkit import LabConfig, lab, paths
paths.CONFIGS = Path(sys.argv.pop(1))

@dataclass
class Config(LabConfig):
    """A made-up week."""
    steps: int = 1
    """Steps."""
    lr: float = 0.0
    """Unused."""
    data: str = ""
    """Unused."""
    kind: str = ""
    """Unused."""
    sleep: float = 0.0
    """Unused."""
    forget: bool = False
    """Unused."""

@lab("toy", Config, backend="numpy")
def train(cfg, run):
    run.track(sum=[0.0])
    for step in run.steps(50):
        print("out", step)
        print("err", step, file=sys.stderr)
        run.log({"train/loss": 1.0}, step)
    run.generated("letters", {"test": 1}, "0")
    run.result({"accuracy": 1.0})

train()
'''


class Gone(io.StringIO):
    """A terminal that was closed."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        raise OSError(errno.EIO, "Input/output error")

    def flush(self) -> None:
        raise OSError(errno.EIO, "Input/output error")


@pytest.mark.parametrize("lines", [0, 1])
def test_a_run_survives_a_reader_that_goes(tmp_path: Path, lines: int) -> None:
    """What `|& head -1` does, with a real pipe: the run ends well, and its record is there."""
    (tmp_path / "week.py").write_text(WEEK)
    env = {k: v for k, v in os.environ.items() if not k.startswith("LAB_")}
    read, write = os.pipe()
    process = subprocess.Popen(
        [sys.executable, "week.py", str(ROOT / "tests/labkit/toy/configs"), "+size=smoke"],
        cwd=tmp_path, env={**env, "PYTHONPATH": str(ROOT), "LAB_HOME": str(tmp_path)},
        stdout=write, stderr=write,
    )  # fmt: skip
    os.close(write)
    with os.fdopen(read) as reader:
        for _ in range(lines):
            assert reader.readline()
    assert process.wait(100) == 0
    (folder,) = (path.parent for path in tmp_path.glob("runs/toy/smoke/*/.hydra"))
    assert json.loads((folder / "result.json").read_text())["ended"] == "finished"
    assert len((folder / "metrics.jsonl").read_text().splitlines()) == 50
    assert len(list(tmp_path.glob("results/toy/smoke-*.json"))) == 1


def test_messages_and_the_progress_bar_outlive_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(sys, "stderr", Gone())
    monkeypatch.setattr(sys, "stdout", Gone())
    with console.outlived():
        print("hello", flush=True)
        console.say("a line")
        console.warn("a warning")
        console.fail("a fault")
        bar = tracking.Progress("toy", 10, 0)
        assert bar.bar is not None
        bar.show({"train/loss": 1.0})
        bar.update(5)
        bar.close()
    assert isinstance(sys.stderr, Gone)


@pytest.mark.parametrize("stream", [None, "closed"])
def test_no_stream_at_all(monkeypatch: pytest.MonkeyPatch, stream: Any) -> None:
    closed = io.StringIO()
    closed.close()
    monkeypatch.setattr(sys, "stderr", None if stream is None else closed)
    with console.outlived():
        console.warn("nobody reads this")
        print("nor this", file=sys.stderr)
    assert sys.stderr is (None if stream is None else closed), "what was there is put back"


def test_what_a_codec_lacks_is_written_in_ascii(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    with console.outlived():
        print("≥ 99 %")
    assert raw.getvalue() == b"\\u2265 99 %\n"


def test_rank_that_is_no_number_is_said(
    toy: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("RANK", "WORLD_SIZE"):
        monkeypatch.setenv(name, "two")
        assert toy.main(["+size=smoke"]) == 2
        assert f"{name}=two is not a whole number" in capsys.readouterr().err
        monkeypatch.delenv(name)
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert toy.main(["+size=smoke"]) == 2
    assert "unset WORLD_SIZE" in capsys.readouterr().err
