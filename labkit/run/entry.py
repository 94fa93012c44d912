"""The `@lab` entrypoint: command lines, Hydra composition with strict keys, sweeps, resuming.

    @lab("diffusion", Config)
    def train(cfg: Config, run: Run) -> None: ...

    if __name__ == "__main__":
        train()

Exit codes: 0 finished, 1 failed, 2 bad usage, 130 interrupted (resumable).
"""

from __future__ import annotations

import importlib
import os
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, Literal, NoReturn, TypeVar

from labkit import paths
from labkit.config import config, sweep
from labkit.config.config import LabConfig, Request
from labkit.errors import ProbeDone, RunFailed, UsageError, advice
from labkit.machine import device, threads
from labkit.run import folders
from labkit.run.life import execute, resume_command
from labkit.show.console import fail, outlived

if TYPE_CHECKING:
    from labkit.run.run import Run, StepProbe

C = TypeVar("C", bound=LabConfig)

SHOW_FLAGS = ("--cfg", "-c", "--package", "-p", "--info", "-i", "--resolve", "--hydra-help")
"""Flags passed on to Hydra as they are; they show something and run nothing."""


class Entrypoint(Generic[C]):
    """A week's `train`: called without arguments it is the command line."""

    def __init__(
        self,
        week: str,
        config_class: type[C],
        function: Callable[[C, Run], None],
        backend: str,
        needs_gpu: bool,
        distributed: bool,
    ) -> None:
        self.week, self.config_class, self.function = week, config_class, function
        self.backend, self.needs_gpu, self.distributed = backend, needs_gpu, distributed
        self.__doc__ = function.__doc__
        self.exit_code = 0

    def __call__(self) -> NoReturn:
        """Run the command line of this process and exit with its code."""
        threads.choose()  # before anything loads OpenMP, which reads it once
        sys.exit(self.main(sys.argv[1:]))

    def main(self, argv: Sequence[str]) -> int:
        """Carry out a command line (without the program's name); returns the exit code."""
        self.exit_code = 0
        with outlived():
            try:
                return self._main(list(argv))
            except UsageError as error:
                fail(str(error))
                return 2
            except OSError as error:
                if (text := advice(error)) is None:
                    raise
                fail(text)
                return 1
            except KeyboardInterrupt:
                fail("interrupted")
                return 130

    def _main(self, argv: list[str]) -> int:
        flags, words = split_flags(argv, self.week)
        if "--help" in flags or "-h" in flags:
            print(config.help_text(self.week, self.config_class))
            return 0
        resume = [word for word in words if word.lstrip("+").startswith("resume=")]
        if resume:
            rest = [word for word in words if word not in resume]
            return self._resume(resume[-1].partition("=")[2], rest, "-m" in flags)
        words = config.normalise(self.week, self.config_class, words)
        multirun = "-m" in flags or "--multirun" in flags
        requests = [self.compose(run) for run in (sweep.expand(words) if multirun else [words])]
        if any(flag.split("=")[0] in SHOW_FLAGS for flag in flags):
            self._hydra([*flags, *words])
            return 0
        self._check_processes()
        return self._start(requests, words, multirun)

    def compose(self, words: Sequence[str]) -> Request:
        """The checked config for command-line words. Raises UsageError."""
        request = config.compose(self.week, self.config_class, words)
        most = request.config.max_steps
        if most is not None and most < 1:
            raise UsageError(f"max_steps={most} must be at least 1; try max_steps=10")
        return request

    # --- starting ---

    def _start(self, requests: list[Request], words: list[str], multirun: bool) -> int:
        name = device.broadcast(new_name())
        for size in {request.size for request in requests}:
            writable(paths.runs() / self.week / size)
        sweep = paths.runs() / self.week / "sweeps" / name
        quiet = ["hydra/job_logging=none", "hydra/hydra_logging=none", "hydra.job.chdir=false"]
        # Hydra would parse a path given as an override, and interpolate `${...}` in it; and it has
        # one folder for all jobs of a sweep. So run folders are made and filled here, and it gets
        # the sweep's own, which it reads from the environment as it stands there.
        with tempfile.TemporaryDirectory() as scratch:
            place = str(sweep) if multirun else scratch
            places = ["hydra.run.dir=${oc.env:LAB_HYDRA}", "hydra.sweep.dir=${oc.env:LAB_HYDRA}"]
            places += ["hydra.sweep.subdir=.", "hydra.output_subdir=null"]
            with _environment(LAB_HYDRA=place, HYDRA_FULL_ERROR="1"):
                self._hydra(
                    [*(["-m"] if multirun else []), *words, *places, *quiet], name, multirun
                )
        return self.exit_code

    def _hydra(self, argv: list[str], name: str = "", multirun: bool = False) -> None:
        """Hand over to hydra.main, whose sweepers and launchers then work as everywhere. Run
        folders get the name `name`, in a sweep `name-<job>`.
        """
        import hydra

        def task(composed: Any) -> float | None:
            from hydra.core.hydra_config import HydraConfig
            from omegaconf import OmegaConf

            settings = HydraConfig.get()
            choices = {
                g: settings.runtime.choices[g]
                for g in config.GROUPS
                if g in settings.runtime.choices
            }
            values: Any = OmegaConf.to_container(composed, resolve=True)
            cfg = config.instantiate(self.config_class, values)
            job = f"{name}-{settings.job.num}" if multirun else name
            folder = paths.runs() / self.week / choices.get("size", "full") / job
            files = {
                "config.yaml": OmegaConf.to_yaml(composed, resolve=True),
                "overrides.yaml": OmegaConf.to_yaml(settings.overrides.task),
                "hydra.yaml": _hydra_yaml(settings, folder),
            }
            code, headline = execute(self, cfg, folder, choices, files)
            self.exit_code = max(self.exit_code, code)
            if code == 130 and multirun:
                raise SystemExit(code)
            return headline if headline is not None or not multirun else float("nan")

        config.register(self.week, self.config_class)
        sys.argv = [f"python -m {self.week}.train", *argv]
        hydra.main(
            version_base="1.3", config_path=str(paths.CONFIGS / self.week), config_name="config"
        )(task)()

    def _check_processes(self) -> None:
        if device.world_size() > 1 and not self.distributed:
            raise UsageError(
                f"week {self.week} runs in one process; start it without torchrun: "
                f"python -m {self.week}.train ..."
            )

    # --- resuming ---

    def _resume(self, where: str, words: list[str], multirun: bool) -> int:
        """`resume=latest` or `resume=<run folder>`: the saved config, the same folder, from the
        last checkpoint.
        """
        if multirun:
            raise UsageError("resume= continues one run; leave out -m")
        self._check_processes()
        folder = self.find(where, words)
        values, choices = config.saved(folder)
        asked = self.compose(words)
        changed: dict[str, tuple[Any, Any]] = {}
        names = {item.name for item in fields(self.config_class)}
        for word in asked.overrides:
            key = word.lstrip("+").partition("=")[0]
            if key in config.GROUPS:
                if asked.choices[key] != choices.get(key):
                    changed[key] = (choices.get(key, "none"), asked.choices[key])
            elif key in names:
                new = getattr(asked.config, key)
                if key in config.RESUMABLE_CHANGES:
                    values[key] = new
                elif values.get(key) != new:
                    changed[key] = (values.get(key), new)
        if changed:
            raise UsageError(
                f"a resumed run keeps its own config, but {folder} has "
                + ", ".join(f"{key}={old} (asked: {new})" for key, (old, new) in changed.items())
                + f".\nType: {resume_command(self.week, where)}"
                + "   or leave out resume= to start a new run."
            )
        unknown = sorted(set(values) ^ names)
        if unknown:
            raise UsageError(
                f"{folder} was made by other code: {', '.join(unknown)} was a setting then "
                "or is one now, but not both. Start a new run without resume=."
            )
        cfg = config.instantiate(self.config_class, values)
        code, _ = execute(self, cfg, folder, choices, resumed=True)
        return code

    def find(self, where: str, words: Sequence[str] = ()) -> Path:
        """The run folder that `latest` (of the size asked for, if any) or a path means. Raises
        UsageError.
        """
        if where != "latest":
            return folders.saved_folder(self.week, where)
        size = next((w.partition("=")[2] for w in words if w.lstrip("+").startswith("size=")), None)
        return folders.latest(self.week, size)


def lab(
    week: str,
    config_class: type[C],
    *,
    backend: Literal["torch", "numpy"] = "torch",
    needs_gpu: bool | None = None,
    distributed: bool = False,
) -> Callable[[Callable[[C, Run], None]], Entrypoint[C]]:
    """Make `train(cfg, run)` the entrypoint of a week.

    Args:
        week: name of the package; its settings are in configs/<week>/.
        config_class: dataclass of the settings, with full-size defaults and a docstring under each
        field. backend: what the week computes with; NumPy weeks never load torch. needs_gpu:
        whether the full size is refused on a machine without GPU (default: torch weeks are).
        distributed: whether the week may be started by torchrun in several processes.
    """

    def decorate(function: Callable[[C, Run], None]) -> Entrypoint[C]:
        gpu = backend == "torch" if needs_gpu is None else needs_gpu
        return Entrypoint(week, config_class, function, backend, gpu, distributed)

    return decorate


def entrypoint(week: str) -> Entrypoint[Any]:
    """The entrypoint of a week by its package name. Raises UsageError when it has none yet."""
    try:
        found = importlib.import_module(f"{week}.train").train
    except ModuleNotFoundError as error:
        if error.name in (week, f"{week}.train"):
            raise UsageError(f"week {week} is not built yet; `lab list` shows which are") from error
        raise
    assert isinstance(found, Entrypoint)
    return found


def probe(week: str, words: Sequence[str], step_probe: StepProbe) -> None:
    """Run a week's loop under a probe until it has seen enough; leaves nothing behind (`lab plan`).

    Raises UsageError for bad overrides, RunFailed when the loop ended or failed before the probe
    was done.
    """
    entry = entrypoint(week)
    request = entry.compose(words)
    with tempfile.TemporaryDirectory() as folder:
        try:
            code, _ = execute(
                entry, request.config, Path(folder) / "probe", request.choices, probe=step_probe
            )
        except ProbeDone:
            return
    raise RunFailed(f"the loop of {week} ended (exit {code}) before it could be measured")


def split_flags(argv: Sequence[str], week: str) -> tuple[list[str], list[str]]:
    """Separate flags, with the values that some take, from key=value words. Raises UsageError for
    an unknown flag.
    """
    flags, words = [], []
    takes_value = False
    for word in argv:
        if takes_value and not word.startswith("-") and "=" not in word:
            flags.append(word)
            takes_value = False
        elif word.startswith("-"):
            name = word.split("=")[0]
            if name not in ("-h", "--help", "-m", "--multirun", *SHOW_FLAGS):
                bare = word.lstrip("-")
                raise UsageError(
                    f"unknown option {word}: settings are written without dashes, e.g. "
                    f"{bare if '=' in bare else bare + '=...'}"
                    f"\nAll settings: python -m {week}.train --help"
                )
            flags.append(word)
            takes_value = name in ("--cfg", "-c", "--package", "-p", "--info", "-i")
        else:
            words.append(word)
    names = {flag.split("=")[0] for flag in flags}
    alone = names & {"--resolve", "--package", "-p"}
    if alone and not names & {"--cfg", "-c"}:
        raise UsageError(
            f"{min(alone)} goes with --cfg: python -m {week}.train --cfg job {min(alone)}"
        )
    return flags, words


def new_name() -> str:
    """A folder name that sorts by time and is unique even among runs started in the same second."""
    return f"{datetime.now():%Y%m%d-%H%M%S}-{uuid.uuid4().hex[:8]}"


def writable(folder: Path) -> None:
    """Raises UsageError when `folder` cannot be made and written to."""
    trial = folder / f".{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        trial.touch()
        trial.unlink()
    except OSError as error:
        raise UsageError(
            f"runs are written to {folder}, which cannot be done: {error.strerror or error}.\n"
            "Set LAB_HOME to a folder that you can write to."
        ) from error


def _hydra_yaml(settings: Any, folder: Path) -> str:
    """Hydra's own settings as it would save them, with the folder that is really used."""
    import yaml
    from omegaconf import OmegaConf

    plain: Any = OmegaConf.to_container(settings, resolve=False, enum_to_str=True)
    plain["runtime"]["output_dir"] = str(folder)
    return yaml.safe_dump({"hydra": plain}, sort_keys=False)


@contextmanager
def _environment(**values: str) -> Iterator[None]:
    """Environment variables for a while."""
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
