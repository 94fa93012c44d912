"""Whatever is typed for a setting of any week, it is taken or refused in a sentence: never another
exception, which would be a traceback for the person who typed it.
"""

from __future__ import annotations

import copy
import dataclasses
import importlib
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hydra
import pytest
from hydra._internal.config_loader_impl import ConfigLoaderImpl

from labkit import paths
from labkit.config import schema, sweep
from labkit.config.fields import settings
from labkit.config.values import checked
from labkit.errors import UsageError
from labkit.run.entry import Entrypoint

SHARED = {field.name for field in dataclasses.fields(schema.LabConfig)}
WEEKS = sorted(
    ".".join(file.relative_to(paths.ROOT).parts[:-1])
    for pattern in ("*/train.py", "*/*/train.py")
    for file in paths.ROOT.glob(pattern)
    if "@lab(" in file.read_text(encoding="utf-8")
)
BAD = (
    "", "???", "null", "nan", "-inf", "-1", "0", "0.5", "1e400", "2", "18446744073709551616",
    "9" * 400, "9" * 5000, "[]", "[???]", "[null]", "[-1]", "{a:1}", "true", '"', "ünïcødé \u200d",
    "\udcff", "${oc.env:NO_SUCH_VARIABLE}", "${seed}", "${", "1,2",
)  # fmt: skip
"""Kinds of bad input; numbers that some settings take are among them, so that their neighbours are
checked against them."""


def entrypoint(week: str) -> Entrypoint[Any]:
    found = importlib.import_module(f"{week}.train").train
    assert isinstance(found, Entrypoint)
    return found


def test_every_week_is_tried() -> None:
    folders = {file.parent.name for file in paths.CONFIGS.glob("*/config.yaml")}
    assert set(WEEKS) == folders


@pytest.fixture
def quick_hydra(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hydra's own composition, but the files of a week are read once and not for each value.

    `test_quick_composition_is_hydras` holds the two against each other.
    """
    whole = hydra.compose
    known: dict[str, Any] = {}
    fresh: dict[str, dict[str, Any]] = {}

    def compose(name: str, overrides: list[str]) -> Any:
        from hydra.core.global_hydra import GlobalHydra

        words = [sweep.parse(word) for word in overrides]
        if any(word.is_sweep_override() or word.key_or_group in schema.GROUPS for word in words):
            return whole(name, overrides)
        key = str([s.path for s in GlobalHydra.instance().config_loader().get_sources()])
        if key not in known:
            known[key] = whole(name)
            fresh[key] = {}
        nodes = known[key]._content
        nodes.update(fresh[key])  # as it was before the words of the last time
        tops = {word.key_or_group.partition(".")[0] for word in words}
        fresh[key] = {top: copy.deepcopy(nodes[top]) for top in tops}
        ConfigLoaderImpl._apply_overrides_to_config(words, known[key])
        return known[key]

    monkeypatch.setattr(hydra, "compose", compose)


def outcome(run: Callable[[], Any]) -> str:
    """`taken`, or the message with which it was refused. Any other exception is the fault."""
    try:
        run()
    except UsageError as error:
        return str(error)
    return "taken"


@pytest.mark.usefixtures("quick_hydra")
@pytest.mark.parametrize("week", WEEKS)
def test_any_value_of_any_setting_is_taken_or_refused(week: str) -> None:
    entry = entrypoint(week)
    every = settings(entry.program.config)
    own = [f for f in every if f.name not in SHARED or week == WEEKS[0]]
    for field in own:
        near = f"{field.default}x"  # a choice, misspelt
        for value in (*BAD, near):
            word = f"{field.name}={value}"
            said = outcome(lambda word=word: entry.compose([word]))  # type: ignore[misc]
            assert len(said) < 2000, (word, "a message is to be read")
            said.encode("ascii", errors="backslashreplace")
            assert said, word
    numbers = [f for f in own if isinstance(f.default, (int, float))]
    assert numbers
    for field in numbers:
        assert "has no value" in outcome(lambda f=field: entry.compose([f"{f.name}=???"]))  # type: ignore[misc]
        for value in ("nan", "1e400", "9" * 400):
            said = outcome(lambda w=f"{field.name}={value}": entry.compose([w]))  # type: ignore[misc]
            assert field.name in said or isinstance(field.default, bool), (field, said)


@pytest.mark.usefixtures("quick_hydra")
def test_quick_composition_is_hydras(monkeypatch: pytest.MonkeyPatch) -> None:
    entry = entrypoint("pretraining")
    words = [["lr=0.5", "seed=${steps}"], ["prompts=[a,b]"], ["steps=x"], ["dropout=0.1", "lr=2"]]
    quick = [outcome(lambda w=w: entry.compose(w)) for w in words]  # type: ignore[misc]
    cfg = entry.compose(words[0]).config
    monkeypatch.undo()
    assert quick == [outcome(lambda w=w: entry.compose(w)) for w in words]  # type: ignore[misc]
    assert cfg == entry.compose(words[0]).config
    assert entry.compose(["seed=1"]).config.seed == 1


@pytest.mark.parametrize("week", WEEKS)
def test_groups_and_odd_words_are_taken_or_refused(week: str) -> None:
    entry = entrypoint(week)
    for word in (
        "size=", "size=[tiny]", "size=tiny,smoke", "size=???", "size=../x", "experiment=",
        "experiment=null", "debug=x", "+debug=default", "=1", "", "seed==1", "seed=1=2", "seed.x=1",
        "seed@a=1", "size@a=tiny", "~seed", "~size=tiny", "+", "++", "@", "x" * 5000, "seed",
        "a b=1",
        "logger.0=x", "hydra=x", "hydra={a: 1}", "_target_=os.getcwd",
    ):  # fmt: skip
        assert len(outcome(lambda w=word: entry.compose([w]))) < 2000, word  # type: ignore[misc]


@pytest.mark.parametrize("value", ["-1", "4294967296", "18446744073709551616"])
@pytest.mark.parametrize("week", WEEKS)
def test_seeds_have_one_range(week: str, value: str) -> None:
    """NumPy's; 2^32 was a traceback after the data had been read, and only in some weeks."""
    entry = entrypoint(week)
    entry.compose(["seed=4294967295"])
    with pytest.raises(UsageError, match="seed"):
        entry.compose([f"seed={value}"])


def test_numpy_draws_the_line_for_seeds_where_the_lab_does() -> None:
    import numpy as np

    from labkit.config.values import SEEDS

    np.random.RandomState(SEEDS - 1)
    with pytest.raises(ValueError, match="Seed must be between"):
        np.random.RandomState(SEEDS)


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("seed=0,1,-1", "seed must be from 0"),
        ("seed=0,4294967296", "seed must be from 0"),
        ("seed=range(0)", "has no value; name the values to sweep over, as in seed=1,2,3"),
        ("lr=interval(0,1)", "name the values to sweep over, as in lr=1,2,3"),
        ("seed=glob(*)", "name the values to sweep over"),
        ("seed=range(0,10000000000)", "more than 1000 values"),
        ("seed=range(0,1,0)", "more than 1000 values"),
        ("seed=shuffle(range(10000000000))", "more than 1000 values"),
        ("seed=" + "9" * 5000, "cannot read"),
        ("seed=choice()", "choice()"),
        ("lr=1,nan", "lr must be a finite number"),
    ],
)
def test_a_sweep_is_checked_for_all_its_values(
    word: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    assert entrypoint("math_ml").main(["-m", "+size=smoke", word]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing was started"


def test_a_sweep_is_expanded_as_hydra_does() -> None:
    runs = sweep.expand(["+size=tiny", "seed=range(3)", "lr=1,2"])
    assert runs == [
        ["+size=tiny", "seed=0", "lr=1"],
        ["+size=tiny", "seed=1", "lr=1"],
        ["+size=tiny", "seed=2", "lr=1"],
        ["+size=tiny", "seed=0", "lr=2"],
    ]


@pytest.mark.parametrize(
    ("word", "said"),
    [
        (
            "+hydra.callbacks.a._target_=os.getcwd",
            "'hydra.callbacks.a._target_' is a setting of Hydra that",
        ),
        (
            "hydra.callbacks={a: {_target_: os.getcwd}}",
            "'hydra.callbacks' is a setting of Hydra that",
        ),
        (
            "hydra.launcher._target_=os.getcwd",
            "'hydra.launcher._target_' is a setting of Hydra that",
        ),
        ("hydra.launcher.n_jobs={_target_: os.getcwd}", "one plain word or number"),
        ("hydra.sweeper.max_batch_size=${oc.env:HOME}", "one plain word or number"),
        ("hydra.searchpath=[file:///tmp]", "'hydra.searchpath' is a setting of Hydra that"),
        ("hydra.run.dir=/tmp/x", "set LAB_HOME"),
        ("hydra.sweeper.max_batch_sice=1", "did you mean hydra.sweeper.max_batch_size?"),
        ("hydra/job_logging=none", "'hydra/job_logging' is a setting of Hydra that"),
        ("hydra/launcher=nowhere", "nowhere"),
        ("hydra/launcher=../x", "one plain word or number"),
        ("~hydra/launcher=basic", "is a setting of Hydra that"),
        ("hydra.sweeper.max_batch_size=many", "many"),
    ],
)
@pytest.mark.parametrize("flags", [[], ["-m"], ["--cfg", "job"]])
def test_settings_of_hydra_are_refused_by_name(
    flags: list[str], word: str, said: str, capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    assert entrypoint("math_ml").main([*flags, "+size=smoke", word]) == 2
    assert said in capsys.readouterr().err
    assert not list(tmp_path.iterdir()), "nothing was started"


def test_settings_of_hydra_that_may_be_changed() -> None:
    entry = entrypoint("math_ml")
    words = ["hydra/launcher=basic", "hydra.sweeper.max_batch_size=2", "hydra.verbose=true"]
    assert entry.compose(words).config == entry.compose([]).config


def test_values_read_back_from_a_run_folder_are_checked_too() -> None:
    """They were never through OmegaConf: someone may have edited the file."""
    cls = entrypoint("pretraining").program.config
    good = dataclasses.asdict(cls())
    assert schema.instantiate(cls, good) == cls()
    for name, value in (
        ("lr", "fast"), ("steps", 1.5), ("steps", True), ("prompts", "one"), ("prompts", [1]),
        ("seed", None), ("data", 3), ("compile", "yes"), ("objective", ["next"]), ("top_k", {}),
    ):  # fmt: skip
        with pytest.raises(UsageError, match=name):
            schema.instantiate(cls, {**good, name: value})


@pytest.mark.parametrize(
    ("value", "annotation", "result"),
    [
        (3, float, 3.0), (None, int | None, None), ([1, 2.5], list[float], [1.0, 2.5]),
        (True, bool, True), ("a", str | None, "a"), (-5, int, -5), (-0.5, float, -0.5),
    ],
)  # fmt: skip
def test_good_values_come_through(value: Any, annotation: Any, result: Any) -> None:
    found = checked("x", value, annotation)
    assert found == result
    assert type(found) is type(result)


@pytest.mark.parametrize(
    "flags", [["--resolve"], ["--package", "x"], ["-p=x"], ["--resolve", "-m"]]
)
def test_flags_that_only_go_with_cfg(
    flags: list[str], capsys: pytest.CaptureFixture[str], tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    """--resolve alone was a traceback of Hydra, and --package alone trained into ./outputs."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    assert entrypoint("math_ml").main(["+size=smoke", *flags]) == 2
    assert "goes with --cfg: python -m math_ml.train --cfg job" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("codec", ["ascii", "cp1252"])
def test_help_is_printed_whatever_the_codec(codec: str) -> None:
    """Help texts have λ, √ and α in them; a console without them gets their numbers."""
    code = "from tests.labkit.test_config_values import WEEKS, entrypoint\nfor week in WEEKS:\n"
    code += "    try: entrypoint(week)()\n    except SystemExit as end: assert end.code == 0, week"
    done = subprocess.run(
        [sys.executable, "-c", code, "--help"],
        env={**os.environ, "PYTHONIOENCODING": codec, "PYTHONPATH": str(paths.ROOT)},
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode(codec)
    for week in WEEKS:
        assert f"usage: python -m {week}.train" in done.stdout.decode(codec)
    assert "\\u03bb" in done.stdout.decode(codec), "λ of week 1"


@pytest.mark.parametrize("command", ["list", "--help"])
def test_lab_commands_print_whatever_the_codec(command: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "labkit.cli", command],
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONPATH": str(paths.ROOT)},
        capture_output=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr.decode()
    assert b"diffusion" in done.stdout
