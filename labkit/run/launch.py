"""New runs: started by hydra.main, so that its sweepers and launchers work as usual."""

from __future__ import annotations

import os
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit import paths
from labkit.config import schema
from labkit.machine import ranks
from labkit.run.folders import new_name, writable
from labkit.run.life import Start, Told, execute
from labkit.run.program import Program

QUIET = ("hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.job.chdir=false")


def launch(
    program: Program, sizes: set[str], words: Sequence[str], multirun: bool, told: Told
) -> int:
    """Run what the words ask for, with `multirun` a sweep; returns the highest exit code.

    Run folders get a new name, in a sweep `<name>-<job>`. Raises UsageError when no folder can be
    made for one of the `sizes`.
    """
    name = ranks.broadcast(new_name())
    for size in sizes:
        writable(paths.runs() / program.week / size)
    codes = [0]

    def task(composed: Any) -> float | None:
        start = _start(program, composed, name, multirun)
        code, headline = execute(program, start, told)
        codes.append(code)
        if code == 130 and multirun:
            raise SystemExit(code)
        return headline if headline is not None or not multirun else float("nan")

    # Hydra would parse a path given as an override, and interpolate `${...}` in it; and it has one
    # folder for all jobs of a sweep. So run folders are made and filled here, and it gets the
    # sweep's own, which it reads from the environment unchanged.
    with tempfile.TemporaryDirectory() as scratch:
        place = str(paths.runs() / program.week / "sweeps" / name) if multirun else scratch
        places = ["hydra.run.dir=${oc.env:LAB_HYDRA}", "hydra.sweep.dir=${oc.env:LAB_HYDRA}"]
        places += ["hydra.sweep.subdir=.", "hydra.output_subdir=null"]
        with _environment(LAB_HYDRA=place, HYDRA_FULL_ERROR="1"):
            _hydra(program, task, [*(["-m"] if multirun else []), *words, *places, *QUIET])
    return max(codes)


def show(program: Program, argv: Sequence[str]) -> None:
    """Let Hydra show something (`--cfg job`, `--info`); nothing is run."""
    _hydra(program, lambda composed: None, argv)


def _hydra(program: Program, task: Any, argv: Sequence[str]) -> None:
    import hydra

    schema.register(program.week, program.config)
    sys.argv = [f"python -m {program.week}.train", *argv]
    folder = str(paths.CONFIGS / program.week)
    hydra.main(version_base="1.3", config_path=folder, config_name="config")(task)()


def _start(program: Program, composed: Any, name: str, multirun: bool) -> Start:
    """What Hydra composed for one job, as the start of a run."""
    from hydra.core.hydra_config import HydraConfig
    from omegaconf import OmegaConf

    settings = HydraConfig.get()
    chosen = settings.runtime.choices
    choices = {group: chosen[group] for group in schema.GROUPS if group in chosen}
    values: Any = OmegaConf.to_container(composed, resolve=True)
    job = f"{name}-{settings.job.num}" if multirun else name
    folder = paths.runs() / program.week / choices.get("size", "full") / job
    files = {
        "config.yaml": OmegaConf.to_yaml(composed, resolve=True),
        "overrides.yaml": OmegaConf.to_yaml(settings.overrides.task),
        "hydra.yaml": _hydra_yaml(settings, folder),
    }
    return Start(schema.instantiate(program.config, values), folder, choices, files)


def _hydra_yaml(settings: Any, folder: Path) -> str:
    """Hydra's own settings as it would save them, with the folder that is really used."""
    import yaml
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(settings, resolve=False, enum_to_str=True)
    plain["runtime"]["output_dir"] = str(folder)
    return yaml.safe_dump({"hydra": plain}, sort_keys=False)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Context with these environment variables."""
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                del os.environ[key]
            else:
                os.environ[key] = value
