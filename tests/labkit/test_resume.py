"""Nothing is lost: kill -9, signals, damaged checkpoints and full disks."""

from __future__ import annotations

import os
import resource
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from labkit.errors import RunFailed
from labkit.state import checkpoint, tracked

TOY = str(Path(__file__).parent / "toy" / "week.py")


def test_killed_run_resumes_to_the_last_bit(resume_check: Any) -> None:
    """Batch norm, dropout, AdamW, Muon, bf16 and a NumPy generator, killed with -9 at a random
    step.
    """
    resume_check(TOY, "+size=smoke", "precision=bf16")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signal_saves_and_says_how_to_go_on(lab_run: Any, number: int) -> None:
    whole = lab_run.once(TOY, "+size=smoke")
    process = lab_run.begin(TOY, "+size=smoke", "sleep=0.1")
    while not (
        files := [f for f in lab_run.home.glob("runs/toy/*/*/metrics.jsonl") if f.stat().st_size]
    ):
        time.sleep(0.05)
    os.kill(process.pid, number)
    code, output = process.wait(60)
    assert code == 130, output
    folder = files[0].parent
    assert f"resume={folder.relative_to(lab_run.home)}" in output
    import json

    assert json.loads((folder / "result.json").read_text())["ended"] == "interrupted"
    assert not list(lab_run.home.glob(f"results/toy/*{folder.name}*")), (
        "only finished runs enter results/"
    )
    assert lab_run(TOY, f"resume={folder}", "checkpoint_seconds=1").returncode == 0
    record = json.loads((folder / "result.json").read_text())
    assert record["ended"] == "finished"
    assert record["metrics"] == whole.record["metrics"]


def test_resume_refuses_another_config(lab_run: Any) -> None:
    cut = lab_run(TOY, "+size=smoke", kill=(5, 8))
    refused = lab_run(TOY, f"resume={cut.dir}", "lr=0.5")
    assert refused.returncode == 2
    assert "lr=0.01 (asked: 0.5)" in refused.output
    assert "resume=" in refused.output
    assert lab_run(TOY, "resume=latest", "+size=tiny").returncode == 2, "there is no tiny run"
    assert lab_run(TOY, f"resume={cut.dir}", "+size=tiny").returncode == 2
    same_value = lab_run(TOY, "resume=latest", "lr=0.01", "logger=tensorboard")
    assert same_value.returncode == 0, same_value.output
    again = lab_run(TOY, "resume=latest")
    assert again.returncode == 2
    assert "has finished" in again.output


def test_half_written_checkpoint_falls_back_to_the_one_before(lab_run: Any) -> None:
    whole = lab_run(TOY, "+size=smoke")
    cut = lab_run(TOY, "+size=smoke", "checkpoint_seconds=0", kill=(5, 9))
    _, new = sorted((cut.dir / "checkpoint").glob("*.safetensors"))
    new.write_bytes(new.read_bytes()[:-100])
    resumed = lab_run(TOY, f"resume={cut.dir}")
    assert resumed.returncode == 0, resumed.output
    assert f"{new.name} is damaged" in resumed.output
    assert "resumed after step 8" in resumed.output
    assert cut.record["metrics"] == whole.record["metrics"]


def test_no_readable_checkpoint_is_an_error_with_a_way_out(lab_run: Any) -> None:
    cut = lab_run(TOY, "+size=smoke", kill=(5, 9))
    for file in (cut.dir / "checkpoint").glob("*.safetensors"):
        file.write_bytes(b"not a checkpoint")
    before = (cut.dir / "metrics.jsonl").read_bytes()
    resumed = lab_run(TOY, f"resume={cut.dir}")
    assert resumed.returncode == 1
    assert "no checkpoint" in resumed.output
    assert "without resume=" in resumed.output
    assert (cut.dir / "metrics.jsonl").read_bytes() == before


def _state() -> dict[str, Any]:
    tied = torch.randn(3, 4)
    return {
        "step": 7,
        "bf16": torch.randn(5).bfloat16(),
        "tied": [tied, tied],
        "slice": torch.arange(12).reshape(3, 4)[:, 1],
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "array": np.arange(6, dtype=np.uint64).reshape(2, 3),
        "nested": {0: {"x": (1, 2.5, None, True, "text")}, "big": 2**127},
    }


def test_round_trip_keeps_types_and_bits(tmp_path: Path) -> None:
    state = _state()
    back = checkpoint.load(checkpoint.save(tmp_path, 7, state))
    assert back["nested"] == state["nested"]
    for key in ("bf16", "slice", "scalar", "empty"):
        torch.testing.assert_close(back[key], state[key], rtol=0, atol=0)
    assert torch.equal(back["tied"][1], state["tied"][0])
    assert back["array"].dtype == np.uint64
    assert (back["array"] == state["array"]).all()


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "text"])
def test_damage_is_found(tmp_path: Path, damage: str) -> None:
    path = checkpoint.save(tmp_path, 7, _state())
    raw = bytearray(path.read_bytes())
    if damage == "flip":
        raw[-3] ^= 1
    raw = {
        "cut": raw[: len(raw) // 2],
        "empty": bytearray(),
        "text": bytearray(b"hello" * 100),
    }.get(damage, raw)
    path.write_bytes(raw)
    with pytest.raises(ValueError, match="is damaged"):
        checkpoint.load(path)
    with pytest.raises(RunFailed, match="can be read"):
        checkpoint.load_latest(tmp_path, warn=lambda _: None)


def test_full_disk_in_mid_save_keeps_the_checkpoint_before(tmp_path: Path) -> None:
    """The kernel refuses to let the file grow past a limit: a real short write, in mid-file."""
    small = {"x": torch.zeros(10)}
    first = checkpoint.save(tmp_path, 1, small)
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limit[1]))
    try:
        with pytest.raises(RunFailed, match=r"step 2 could not be written .* resume"):
            checkpoint.save(tmp_path, 2, {"x": torch.zeros(1_000_000)})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    assert list(tmp_path.iterdir()) == [first]
    assert torch.equal(checkpoint.load_latest(tmp_path)["x"], small["x"])  # type: ignore[index]


def test_optimizer_state_keeps_the_layout_of_channels_last_weights(tmp_path: Path) -> None:
    """Fused AdamW pairs moments with weights by their place in memory, not by index."""

    def begin() -> tuple[torch.nn.Conv2d, torch.optim.Optimizer]:
        torch.manual_seed(0)
        conv = torch.nn.Conv2d(8, 16, 3).to(memory_format=torch.channels_last)
        return conv, torch.optim.AdamW(conv.parameters(), 0.1, fused=True)

    def steps(conv: torch.nn.Conv2d, optimizer: torch.optim.Optimizer, seeds: range) -> None:
        for seed in seeds:
            x = torch.randn(4, 8, 6, 6, generator=torch.Generator().manual_seed(seed))
            optimizer.zero_grad()
            conv(x).square().mean().backward()
            optimizer.step()

    whole = begin()
    steps(*whole, range(6))
    cut = begin()
    steps(*cut, range(3))
    state = {"conv": cut[0].state_dict(), "optimizer": cut[1].state_dict()}
    loaded = checkpoint.load(checkpoint.save(tmp_path, 3, state))
    resumed = begin()
    for thing, name in zip(resumed, ("conv", "optimizer"), strict=True):
        tracked.set_state(thing, loaded[name], name)
    steps(*resumed, range(3, 6))
    assert torch.equal(resumed[0].weight, whole[0].weight)


def test_unknown_things_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"state\.a\.0 is a set"):
        checkpoint.save(tmp_path, 1, {"a": [{1, 2}]})
