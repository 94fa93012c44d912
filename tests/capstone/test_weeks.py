"""A stage that is a whole week: started once, gone on with, and not done again."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from capstone import report
from capstone.stages import Chain
from capstone.tracks import weeks
from capstone.tracks.world_model import WorldModel
from labkit import RunFailed, paths
from labkit.errors import Interrupted

WEEK = "world_models"


class Finish:
    """Stands in for the week's process: writes what a run leaves, and ends with `code`."""

    def __init__(self, run: Path) -> None:
        self.folder = run / "weeks" / "runs" / WEEK / "smoke" / "20260101-000000-aaaaaaaa"
        self.code, self.ended, self.asked = 0, "finished", list[list[str]]()

    def __call__(self, command: list[str], folder: None, env: dict[str, str]) -> int:
        self.asked.append(command[3:])
        assert env["LAB_HOME"] == str(self.folder.parents[3])
        (self.folder / ".hydra").mkdir(parents=True, exist_ok=True)
        (self.folder / ".hydra" / "config.yaml").write_text("seed: 7\n")
        (self.folder / "samples").mkdir(exist_ok=True)
        (self.folder / "samples" / "return.png").write_bytes(b"picture")
        record = {
            "schema": 1, "week": WEEK, "size": "tiny", "seed": 7, "ended": self.ended,
            "data": {"name": "lab/MiniTrack-v0"}, "started": "2026-01-01T00:00:00+00:00",
            "config": {
                "method": "world_model", "features": "v_m", "dream": True, "search.temperature": 1.0
            },
            "metrics": {"nll_gain": 0.75, "model_nll": 2.0, "return": 9.0, "return_ratio": 2.5},
        }  # fmt: skip
        (self.folder / "result.json").write_text(json.dumps(record))
        return self.code


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """A run as the track sees it, and the week's process."""
    monkeypatch.setattr(paths, "artifacts", lambda: tmp_path / "artifacts")
    run = SimpleNamespace(
        dir=tmp_path / "run", size="smoke", seed=7, cfg=SimpleNamespace(device="cpu"),
        environment=lambda name: None,
    )  # fmt: skip
    run.dir.mkdir()
    finish = Finish(run.dir)
    monkeypatch.setattr(weeks, "finish", finish)
    return SimpleNamespace(run=run, finish=finish)


def test_a_week_runs_once_for_all_stages_that_use_it(place: Any) -> None:
    chain = Chain(WorldModel(place.run).stages(), place.run.dir / "stages")
    for _ in range(chain.steps):
        chain.step()
    assert place.finish.asked == [["+size=smoke", "seed=7", "device=cpu"]]
    assert chain.results == {
        "dream": {"nll_gain": 0.75, "model_nll": 2.0}, "act": {"return": 9.0, "return_ratio": 2.5},
        "film": {"pictures": 0.0},
    }  # fmt: skip
    assert (chain.home / "act" / "return.png").read_bytes() == b"picture"
    assert (place.run.dir / "weeks" / "artifacts").resolve() == paths.artifacts().resolve()
    kept = report.week_records(chain.home)
    assert sorted(kept) == ["act", "dream"]
    rows = report.card.rows({s.name: s.claims for s in chain.stages}, chain.results, kept)
    verdicts = {row.metric: row.verdict for row in rows if row.band}
    assert verdicts == {"nll_gain": "met", "return_ratio": "missed"}
    titles = [report.titled(row, kept.get(row.stage)).metric for row in rows]
    assert "NLL of the next latent, nats a frame" in titles, "as the week names it"


def test_a_week_that_was_cut_short_is_gone_on_with(place: Any) -> None:
    place.finish.code, place.finish.ended = 130, "interrupted"
    with pytest.raises(Interrupted, match="world_models"):
        weeks.week_run(place.run, WEEK)
    place.finish.code, place.finish.ended = 0, "finished"
    assert weeks.week_run(place.run, WEEK) == place.finish.folder
    assert place.finish.asked[1:] == [[f"resume={place.finish.folder}"]]
    weeks.week_run(place.run, WEEK)
    assert len(place.finish.asked) == 2


def test_a_week_that_fails_fails_the_stage(place: Any) -> None:
    place.finish.code, place.finish.ended = 1, "failed"
    chain = Chain(WorldModel(place.run).stages(), place.run.dir / "stages")
    with pytest.raises(RunFailed, match=r"stage dream: week world_models failed \(exit 1\)"):
        chain.step()
    assert chain.left == ["dream", "act", "film"]
    assert not (chain.home / "dream").exists()
