"""What a finished stage reports: measures and pictures of its clips; at the end the cascade's."""

from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from labkit import Run, UsageError
from video_generation import evaluate, tracking
from video_generation.cascade import Cascade
from video_generation.data import Clips
from video_generation.evaluate import Distances
from video_generation.model import VideoUNet
from video_generation.pipeline import Pipeline, halved

FPS = 6
"""Frames a second of a GIF at the base rate."""


def report(run: Run, pipeline: Pipeline, test: Clips, distances: Distances) -> dict[str, float]:
    """Draw what the stage is for, measure it, and show it beside the truth."""
    settings, x = pipeline.settings, torch.from_numpy(test.frames)
    if settings.stage == "base":
        drawn = pipeline.predict(x, run.seed)
        free = pipeline.generate(len(x), run.seed + 1)
        metrics = distances(free)
        show(run, "generated", free[::2], free[1::2], np.zeros(settings.frames, bool), FPS)
    elif settings.stage == "temporal":
        drawn = pipeline.between(x[:, ::2], run.seed)
        metrics = distances(drawn)
    else:
        drawn = pipeline.larger(halved(x), run.seed)
        metrics = distances(drawn) | {
            "psnr": evaluate.psnr(drawn, x),
            "psnr_enlarged": evaluate.psnr(evaluate.enlarged(x), x),
        }
    metrics |= evaluate.position_errors(settings, test, drawn)
    given = ~evaluate.drawn_frames(settings, test)[0, :, 0]
    show(run, "beside", x, drawn, given, FPS * settings.motion().rate)
    return metrics


def show(run: Run, name: str, above: Tensor, below: Tensor, given: np.ndarray, fps: int) -> None:
    """samples/<name>.gif and .png: clips above, others below."""
    run.gif(name, evaluate.beside(above, below, given), fps)
    run.grid(name, evaluate.strip(above, below), above.shape[1])


def cascade(
    run: Run, spatial: Pipeline, data: str, test: Clips, distances: Distances
) -> dict[str, float]:
    """The whole chain, measured at full resolution: from nothing, and from the first frames."""
    chain = Cascade(
        _stage(run, spatial, data, "base"), _stage(run, spatial, data, "temporal"), spatial
    )
    x = torch.from_numpy(test.frames)
    drawn = chain.predict(halved(x[:, ::2]), run.seed)
    first = 2 * chain.base.settings.given - 1  # true frames that the given ones stand for
    where = np.zeros(test.bounces.shape, bool)
    where[:, first:] = True
    found = tracking.track(drawn.cpu(), torch.from_numpy(test.sprites)).numpy()
    free = chain.generate(len(x), run.seed + 3)
    shown = np.arange(x.shape[1]) < first
    show(run, "cascade", x, drawn, shown, 2 * FPS)
    show(run, "cascade_generated", free[::2], free[1::2], np.zeros(len(shown), bool), 2 * FPS)
    return {
        "cascade_tracking_error": tracking.distance(found, test.positions, where),
        "cascade_fvd_lab": distances(free)["fvd_lab"],
    }


def _stage(run: Run, spatial: Pipeline, data: str, stage: str) -> Pipeline:
    """The network that an earlier stage published; its run is started first if there is none.

    Raises UsageError when it was trained for other clips.
    """
    folder = run.artifact(run.week, data, experiment=None if stage == "base" else stage)
    if folder is None:  # size smoke: an untrained network
        shape: dict[str, Any] = {**spatial.network.shape, "low": False}
        settings = replace(spatial.settings, stage=stage)
        return Pipeline(VideoUNet(**shape).to(run.device).eval(), settings, run.autocast)
    found = Pipeline.load(folder, run.device)
    found.autocast = run.autocast
    for name in ("frames", "side", "channels"):
        if (its := getattr(found.settings, name)) != (ours := getattr(spatial.settings, name)):
            raise UsageError(
                f"{folder} has {name}={its} and this run {name}={ours}: the stages of a cascade "
                "must agree. Remove it, and it is made anew"
            )
    return found
