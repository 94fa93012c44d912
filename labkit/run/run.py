"""`Run`: what a training loop needs around it, and nothing of the loop itself.

It hands out steps (with progress, checkpoints, signals and resume), takes what is to be logged,
drawn, restored and reported, and leaves behind `runs/<week>/<size>/<time>-<id>/`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from labkit.errors import RunFailed
from labkit.machine import ranks
from labkit.records import curves
from labkit.run import artifacts, record
from labkit.run.steps import Steps
from labkit.show import pictures

if TYPE_CHECKING:
    from labkit.data import Dataset

D = TypeVar("D", bound="Dataset")


class Run(Steps):
    """One run of one week. Made by the `@lab` entrypoint; weeks only use it."""

    metrics: dict[str, float] | None = None

    def data(self, name: str, kind: type[D]) -> D:
        """The dataset `name` (or cfg.fallback), whose provenance enters the record.

        The first set asked for is the one that the bands are about; further ones are listed under
        its `also`. `kind` is ImageData, TextData or TableData. Raises UsageError for a set of
        another kind, DataError when it is not available.
        """
        from labkit import data

        if self.data_record is None:
            loaded = data.load(name, self.cfg.fallback, kind)
            self.data_record = loaded.provenance(name)
        else:
            loaded = data.load(name, kind=kind)  # cfg.fallback is for the first set alone
            self.data_record.setdefault("also", []).append(loaded.provenance(name))
        assert isinstance(loaded, kind)
        return loaded

    def environment(self, name: str) -> None:
        """Name the environment that is used instead of a dataset, for the record."""
        self._made("gymnasium", name, {}, None)

    def generated(self, name: str, splits: dict[str, int], sha256: str) -> None:
        """Name the data that the week makes itself, with its sizes and hash, for the record."""
        self._made("generated", name, splits, sha256)

    def _made(self, source: str, name: str, splits: dict[str, int], sha256: str | None) -> None:
        self.data_record = {
            "name": name,
            "requested": name,
            "source": source,
            "splits": splits,
            "sha256": sha256,
        }

    # --- pictures ---

    def _picture(self, name: str, save: Callable[[Path], None], suffix: str = ".png") -> None:
        if self.writes:
            save(self.dir / "samples" / f"{name}{suffix}")

    def image(self, name: str, image: Any) -> None:
        """samples/<name>.png from (H, W), (C, H, W) or (H, W, 3), uint8 or float in [0, 1]."""
        self._picture(name, lambda path: pictures.save_png(path, image))

    def grid(
        self, name: str, images: Any, columns: int = 8, titles: Sequence[str] | None = None
    ) -> None:
        """samples/<name>.png: images (N, C, H, W) or (N, H, W) in rows, with titles if given."""
        self._picture(name, lambda path: pictures.save_grid(path, images, columns, titles))

    def gif(self, name: str, frames: Sequence[Any], fps: int = 30) -> None:
        """samples/<name>.gif from frames (H, W, 3) uint8."""
        self._picture(name, lambda path: pictures.save_gif(path, frames, fps), ".gif")

    def figure(self, name: str, figure: Any) -> None:
        """samples/<name>.png from a matplotlib figure."""
        self._picture(name, lambda path: pictures.save_figure(path, figure))

    def plot(self, name: str, *keys: str, logy: bool = False) -> None:
        """samples/<name>.png: logged metrics against the step, of the whole run, resumed or not.

        Where recorded runs of this size had them, there is a grey area.
        """
        if self.writes:
            self._log.flush()
            corridors = self.reference.corridors
            rows = self.dir / "metrics.jsonl"
            self.figure(name, pictures.curve(rows, keys, logy, corridors))

    # --- what comes out ---

    def result(self, metrics: dict[str, Any]) -> None:
        """Report the headline metrics at the end. Raises RunFailed when one is not finite."""
        numbers = {key: float(value) for key, value in metrics.items()}
        bad = [f"{key} = {value}" for key, value in numbers.items() if not math.isfinite(value)]
        if bad:
            raise RunFailed(f"headline metrics must be finite: {', '.join(bad)}")
        self.metrics = numbers

    def note(self, **facts: Any) -> None:
        """Facts for the record's `notes` that are neither settings nor metrics, as JSON has them:
        what was really used, or seconds, which differ from run to run.
        """
        self.notes = (self.notes or {}) | facts

    def publish(self, save: Callable[[Path], None]) -> None:
        """Publish the artifact `<week>/<size>-<data>` for later weeks: `save` fills the folder it
        is given. An experiment's is `<week>/<size>-<data>-<experiment>`.

        It gets there when the run has finished, with the run's record, and replaces an earlier one.
        Runs that were cut short, are broken on purpose, or differ from their size in what was
        trained (see `labkit.run.artifacts.FREE`) publish nothing.
        """
        experiment = self.experiment or ""
        if not self.writes or experiment.startswith("broken_") or self.cfg.max_steps is not None:
            return
        assert self.data_record is not None, "run.data() comes before run.publish()"
        artifacts.stage(self, save)

    def artifact(
        self,
        week: str,
        data: str,
        fallback: str | None = None,
        experiment: str | None = None,
        size: str = "tiny",
    ) -> Path | None:
        """The folder that `week` published from a run of `size` on `data` (or on `fallback` where
        `data` is not on this machine) with `experiment`; that run is started first if there is
        none, or if what there is missed its band.

        None at size smoke, where weeks make what they need at random initialisation, and in a
        run that is only watched. Raises RunFailed when the run that was started does not finish.
        """
        if self.size == "smoke" or self.observer is not None:
            return None
        return ranks.once(lambda: artifacts.obtain(week, data, fallback, experiment, size))

    def record(self, ended: str) -> dict[str, Any]:
        """The result record as it stands now (see labkit.records)."""
        return record.made(self, self.metrics or {}, ended)

    def curves(self) -> dict[str, Any]:
        """The run's curves, thinned for results/ (see labkit.records.curves)."""
        return curves.thinned(pictures.read_metrics(self.dir / "metrics.jsonl"))

    def close(self) -> None:
        """Write out what is pending, whatever its values, and close all files."""
        self._log.close()
