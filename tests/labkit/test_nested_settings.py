"""Settings in groups (`ppo.lr=3e-4`) and bounds in annotations: strict as all others."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import pytest

from labkit import LabConfig, Run, UsageError, lab
from labkit.config import schema
from labkit.config.bounds import Bounds, Fraction, NonNegativeInt, PositiveFloat, PositiveInt, Share
from labkit.config.fields import flat, flatten, nest, settings


@dataclass
class Climber:
    """How the climber moves."""

    lr: PositiveFloat = 0.1
    """Height of a step."""
    ropes: list[PositiveInt] = field(default_factory=lambda: [1, 2])
    """Lengths."""
    style: Literal["free", "aid"] = "free"
    """Of climbing."""


@dataclass
class Config(LabConfig):
    """A climb."""

    height: PositiveInt = 3
    """Steps."""
    climber: Climber = field(default_factory=Climber)
    """Who climbs."""
    rest: Share = 0.0
    """Part of the time that is rest."""


def climb(cfg: Config, run: Run) -> None:
    run.generated("hill", {"test": 1}, "0")
    run.track(nothing=[])
    for step in run.steps(cfg.height):
        run.log({"train/height": cfg.climber.lr * (step + 1)}, step)
        if step == 1:
            run.save()
    run.result({"top": cfg.height * cfg.climber.lr})


entry = lab("climbing", Config, backend="numpy")(climb)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    configs = tmp_path / "configs" / "climbing"
    (configs / "size").mkdir(parents=True)
    (configs / "experiment").mkdir()
    (configs / "config.yaml").write_text("defaults: [climbing_schema, _self_]\n")
    (configs / "size" / "smoke.yaml").write_text("# @package _global_\nclimber: {lr: 0.5}\n")
    (configs / "experiment" / "aided.yaml").write_text(
        "# @package _global_\nclimber: {style: aid}\n"
    )
    monkeypatch.setattr("labkit.paths.CONFIGS", tmp_path / "configs")
    monkeypatch.setenv("LAB_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


def composed(*words: str) -> Config:
    cfg = entry.compose(words).config
    assert isinstance(cfg, Config)
    return cfg


def test_groups_compose_from_files_and_words(home: Path) -> None:
    assert composed() == Config()
    assert composed("+size=smoke").climber == Climber(lr=0.5)
    assert composed("+size=smoke", "climber.lr=2", "+experiment=aided").climber == Climber(
        lr=2.0, style="aid"
    )
    assert composed("climber.ropes=[7]").climber.ropes == [7]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("climber.lrr=1", "did you mean climber.lr?"),
        ("climber_lr=1", "it is called climber.lr now"),
        ("climber=3", "'climber' is a group of settings: climber.lr, climber.ropes"),
        ("climber.lr=0", "climber.lr must be > 0, got 0.0; try climber.lr=0.1"),
        ("climber.lr=x", "climber.lr"),
        ("climber.lr=???", "climber.lr=??? has no value"),
        ("climber.style=fre", "did you mean free?"),
        ("climber.ropes=[1,0]", "climber.ropes must be > 0, got 0"),
        ("rest=1", "rest must be from 0 to below 1, got 1.0"),
        ("height=0", "height must be > 0, got 0; try height=3"),
        ("~climber.lr", "cannot be deleted"),
    ],
)
def test_mistakes_are_named(home: Path, word: str, said: str) -> None:
    with pytest.raises(UsageError) as error:
        composed(word)
    assert said in str(error.value)


def test_a_config_made_in_python_is_held_to_its_bounds() -> None:
    with pytest.raises(UsageError, match=r"climber\.lr must be > 0"):
        Config(climber=Climber(lr=-1.0))


def test_help_shows_groups_with_their_bounds(
    home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert entry.main(["--help"]) == 0
    said = capsys.readouterr().out
    assert "climber: How the climber moves (full-size value shown" in said
    assert "fallback=null                str, or null" in said
    line = next(line for line in said.splitlines() if "climber.lr=" in line)
    assert line.split() == ["climber.lr=0.1", "float,", ">", "0"]
    assert "Height of a step." in said


def records(home: Path) -> list[dict[str, Any]]:
    return [json.loads(file.read_text()) for file in sorted(home.glob("results/*/*.json"))]


def test_a_sweep_over_a_setting_of_a_group_is_recorded(home: Path) -> None:
    assert entry.main(["-m", "+size=smoke", "climber.lr=1,2", "height=2"]) == 0
    found = [(r["config"]["climber.lr"], r["metrics"]["top"]) for r in records(home)]
    assert found == [(1.0, 2.0), (2.0, 4.0)]
    assert entry.main(["-m", "+size=smoke", "climber.lr=1,0"]) == 2


def test_a_resumed_run_keeps_its_groups(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = entry.main(["+size=smoke", "climber.lr=4", "max_steps=1"])
    assert first == 0
    (folder,) = (path.parent for path in home.glob("runs/*/*/*/.hydra"))
    (folder / "result.json").unlink()
    assert entry.main([f"resume={folder}", "climber.lr=5"]) == 2
    assert "climber.lr=4.0 (asked: 5.0)" in capsys.readouterr().err
    assert entry.main([f"resume={folder}", "climber.lr=4"]) == 0
    assert json.loads((folder / "result.json").read_text())["config"]["climber.lr"] == 4.0


def test_flat_and_nested_are_inverse() -> None:
    values = flat(Config(climber=Climber(style="aid")))
    assert values["climber.style"] == "aid"
    assert set(values) == {setting.name for setting in settings(Config)}
    assert flatten(nest(values)) == values
    assert schema.instantiate(Config, nest(values)) == Config(climber=Climber(style="aid"))


@pytest.mark.parametrize(
    ("bounds", "text", "inside", "outside"),
    [
        (Bounds(above=0), "> 0", [1e-9, 5], [0, -1]),
        (Bounds(least=0), "0 or more", [0, 5], [-1e-9]),
        (Bounds(least=0, below=1), "from 0 to below 1", [0, 0.999], [1, -0.1]),
        (Bounds(least=0, most=1), "from 0 to 1", [0, 1], [1.001, -0.1]),
        (Bounds(above=0, most=1), "above 0 and up to 1", [1e-9, 1], [0, 1.001]),
        (Bounds(above=0, below=1), "above 0 and below 1", [0.5], [0, 1]),
    ],
)
def test_bounds(bounds: Bounds, text: str, inside: list[float], outside: list[float]) -> None:
    assert str(bounds) == text
    assert all(map(bounds.holds, inside))
    assert not any(map(bounds.holds, [*outside, float("nan")]))


def test_optional_numbers_have_bounds_too() -> None:
    @dataclass
    class Optional(LabConfig):
        top: PositiveInt | None = None
        share: Fraction = 1.0
        count: NonNegativeInt = 0

    assert Optional().top is None
    with pytest.raises(UsageError, match="top must be > 0"):
        Optional(top=0)
    with pytest.raises(UsageError, match="count must be 0 or more"):
        Optional(count=-1)
