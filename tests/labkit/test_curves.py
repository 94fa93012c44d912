"""Is this curve normal? Curves of recorded runs, their corridor, and a run beside them."""

from __future__ import annotations

import itertools
import json
import math
from pathlib import Path
from typing import Any

import pytest

from labkit import Run
from labkit.records import curves
from labkit.records.curves import BINS, Corridor, corridor, thinned
from labkit.run import launch
from labkit.show import pictures


def rows(total: int, value: Any, key: str = "train/loss") -> list[dict[str, float]]:
    return [{"step": step, key: value(step)} for step in range(total)]


def test_a_curve_is_the_mean_of_each_stretch() -> None:
    curve = thinned(rows(400, float))["train/loss"]
    assert curve["last"] == 399
    assert len(curve["means"]) == BINS
    assert curve["means"][0] == pytest.approx(4.5)
    # The last bin has 399 itself as well.
    assert curve["means"][-1] == pytest.approx((390 + 399) / 2, abs=0.5)


def test_stretches_without_a_value_and_values_that_are_no_numbers() -> None:
    few = [{"step": 0, "a": 1.0}, {"step": 50, "a": math.nan, "b": 3.0}, {"step": 100, "a": 2.0}]
    found = thinned(few)
    assert found["a"]["means"] == [1.0, *[None] * (BINS - 2), 2.0]
    assert found["b"]["means"][-1] == 3.0
    assert thinned([{"step": 0, "a": 1.0}]) == {}, "a single point at step 0 is no curve"
    assert thinned([]) == {}


def test_files_come_back_and_damage_is_no_curve(tmp_path: Path) -> None:
    file = tmp_path / "curves" / "one.json"
    made = thinned(rows(100, lambda step: 1 / (1 + step)))
    curves.write(file, made)
    assert curves.read(file) == made
    assert len(file.read_text().splitlines()) == 3
    file.write_text('{"train/loss": {"last": 3}}')
    assert curves.read(file) == {}
    file.write_text(json.dumps({"train/loss": {"last": 3, "means": ["high"] * BINS}}))
    assert curves.read(file) == {}
    file.write_text("[")
    assert curves.read(file) == {}
    assert curves.read(tmp_path / "none.json") == {}


def test_a_corridor_joins_runs_of_one_length() -> None:
    def made(last: float, value: float) -> dict[str, Any]:
        return {"last": last, "means": [value] * (BINS - 1) + [None]}

    joined = corridor([made(10, 1.0), made(10, 2.0), made(99, 50.0)])
    assert joined is not None
    assert (joined.runs, joined.last, joined.low[0], joined.high[0]) == (2, 10, 1.0, 2.0)
    assert joined.low[-1] is None
    assert corridor([]) is None


def test_what_a_corridor_holds() -> None:
    low, high = (*[5.0] * 20, *[1.0] * 20), (*[6.0] * 20, *[1.5] * 20)
    one = Corridor(3, 400, low, high)
    # Margin: the difference and a tenth of the height, 5.
    assert one.holds(0, 7.5)
    assert not one.holds(0, 7.6)
    assert one.holds(39, 0.0)
    assert not one.holds(39, -0.1)
    assert one.holds(BINS, 1e9), "past the end nothing is known"
    assert one.bin(0) == 0
    assert one.bin(399.9) == BINS - 1
    assert one.bin(400) == BINS - 1
    assert one.bin(401) == BINS
    late = Corridor(3, 400, low, high, first=360)
    assert [late.bin(step) for step in (0, 359.9, 360, 361, 400)] == [-1, -1, 0, 1, BINS - 1]
    assert late.holds(-1, 1e9), "before its first step nothing is known"
    assert (late.end(0), late.end(BINS - 1), one.end(0)) == (361, 400, 10)


def test_a_metric_that_begins_late_has_its_own_stretches() -> None:
    logged = [{"step": step, "early": 1.0} for step in range(3500)]
    logged += [{"step": step, "search/mean": step - 3500.0} for step in range(3500, 3541)]
    found = thinned(logged)
    assert "first" not in found["early"]
    late = found["search/mean"]
    assert (late["first"], late["last"]) == (3500, 3540)
    assert late["means"] == [*map(float, range(39)), 39.5]
    joined = corridor([late, late | {"first": 0}, late])
    assert joined is not None
    assert (joined.runs, joined.first) == (2, 3500)
    assert thinned([{"step": 9, "a": 1.0}])["a"] == {"last": 9, "means": [None] * 39 + [1.0]}


def train(scale: float) -> Any:
    def loop(cfg: Any, run: Run) -> None:
        run.generated("numbers", {"test": 1}, "0")
        run.track(nothing=[])
        for step in run.steps(200):
            run.log({"train/loss": scale / (1 + step), "train/lr": scale}, step)
        run.result({"accuracy": 1.0})
        run.plot("loss", "train/loss")

    return loop


MAKE = ["+size=smoke", "steps=200"]


def test_a_run_is_drawn_and_told_beside_the_recorded_ones(
    week: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: Any
) -> None:
    drawn: list[Any] = []
    original = pictures.curve

    def curve(file: Path, keys: Any, logy: bool, corridors: Any) -> Any:
        drawn.append(corridors)
        return original(file, keys, logy, corridors)

    monkeypatch.setattr(pictures, "curve", curve)
    seconds = itertools.count()  # no two runs of one second, whose order would be by chance
    monkeypatch.setattr(launch, "new_name", lambda: f"20260102-0304{next(seconds):02d}-a")
    assert week(train(1.0)).main([*MAKE, "seed=0"]) == 0
    assert drawn[-1] == {}, "there is no record yet"
    assert week(train(1.1)).main([*MAKE, "seed=1"]) == 0
    assert drawn[-1]["train/loss"].runs == 1
    assert "not as recorded" not in capsys.readouterr().err
    assert week(train(30.0)).main([*MAKE, "seed=1"]) == 0
    assert "not as recorded" not in capsys.readouterr().err, "two runs do not show what chance does"
    assert week(train(1.1)).main([*MAKE, "seed=1"]) == 0  # the latest of a seed counts
    assert week(train(0.9)).main([*MAKE, "seed=2"]) == 0
    assert "not as recorded" not in capsys.readouterr().err
    assert week(train(30.0)).main([*MAKE, "seed=3"]) == 0
    said = capsys.readouterr().err
    assert said.count("not as recorded: train/loss is about") == 1
    assert "where 3 recorded runs of this size had" in said
    assert "train/lr" not in said.partition("not as recorded")[2].splitlines()[0]
    assert drawn[-1]["train/loss"].runs == 3
    (one, *_) = tmp_path.glob("results/toy/curves/*.json")
    assert json.loads(one.read_text())["train/loss"]["last"] == 199


def test_another_size_or_setting_is_nothing_to_compare_with(week: Any, tmp_path: Path) -> None:
    from labkit.run.reference import found

    assert week(train(1.0)).main(MAKE) == 0
    (record,) = (json.loads(f.read_text()) for f in tmp_path.glob("results/toy/*.json"))
    config = record["config"]
    assert found("toy", "smoke", None, config, "numbers")
    assert found("toy", "smoke", None, config | {"seed": 7, "device": "cuda"}, "numbers")
    assert found("toy", "smoke", "broken_lr", config | {"lr": 1e3}, "numbers")
    assert not found("toy", "tiny", None, config, "numbers")
    assert not found("toy", "smoke", None, config | {"lr": 1e3}, "numbers")
    assert not found("toy", "smoke", None, config, "others")
    assert not found("toy", "smoke", "wide", config, "numbers")


def test_older_spellings_and_the_variant_of_a_broken_run(tmp_path: Path) -> None:
    from labkit.records.alike import same_settings

    record = {"config": {"ppo_lr": 0.1, "algo": "ppo"}}
    assert same_settings(record, {"ppo.lr": 0.1, "dqn.lr": 3.0}, {"ppo.lr", "dqn.lr"})
    assert not same_settings(record, {"ppo.lr": 0.2}, {"ppo.lr"})
    assert same_settings(record, {"ppo.lr": 0.2, "algo": "ppo"}, {"algo"})
    assert not same_settings(record, {"algo": "dqn"}, {"algo"})


def test_a_broken_run_is_compared_with_runs_of_its_algorithm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from labkit.run.reference import found

    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    folder = tmp_path / "results" / "reinforcement_learning"
    for number, (algo, bug) in enumerate([("ppo", None), ("dqn", None), ("dqn", "x: y")]):
        name = f"smoke-{number}.json"
        record = {
            "schema": 1, "week": "reinforcement_learning", "size": "smoke", "experiment": None,
            "config": {"algo": algo, "bug": bug}, "seed": number, "metrics": {"return": 1.0},
            "ended": "finished", "started": "2026-01-01", "data": {"name": "CartPole-v1"},
        }  # fmt: skip
        folder.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(json.dumps(record))
        curves.write(folder / "curves" / name, thinned(rows(100, lambda s, n=number: n + s)))
    config = {"algo": "dqn", "bug": "dqn.td_target: z", "dqn.lr": 9.0}
    corridors = found("reinforcement_learning", "smoke", "broken_x", config, "CartPole-v1")
    assert corridors["train/loss"].runs == 1
    assert corridors["train/loss"].low[0] == pytest.approx(2.0, abs=0.6)


def test_a_damaged_metrics_file_costs_the_curves_and_not_the_record(
    week: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def damaged(cfg: Any, run: Run) -> None:
        train(1.0)(cfg, run)
        file = run.dir / "metrics.jsonl"
        file.write_bytes(file.read_bytes().replace(b"{", b"", 1))

    assert week(damaged).main(MAKE) == 0
    assert "its curves are not" in capsys.readouterr().err
    assert len(list(tmp_path.glob("results/toy/*.json"))) == 1
    assert not list(tmp_path.glob("results/toy/curves/*"))
