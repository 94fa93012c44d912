"""Measuring clips: where the objects are, and how the clips are distributed.

Positions are compared with the known dynamics, over the frames that were drawn. Frames after the
first bounce count apart: before it, a straight line is a good guess, and copying the last frame is
not a bad one. Every distance of distributions is reported with that of real clips.
"""

from typing import Any, cast

import numpy as np
import torch
from torch import Tensor

from labkit import Run
from pytorch_mastery import FeatureDistance
from video_generation import judge, tracking
from video_generation.data import Clips
from video_generation.judge import VideoClassifier
from video_generation.pipeline import Settings, enlarge, shrink

REFERENCE = 1000
"""Training clips by whose features the distances are scaled; more if more clips are measured."""


def drawn_frames(settings: Settings, clips: Clips) -> np.ndarray:
    """Which frames of a test clip a stage has to draw, bool (N, T, J)."""
    drawn = np.ones(clips.bounces.shape, bool)
    if settings.stage == "base":
        drawn[:, : settings.given] = False
    elif settings.stage == "temporal":
        drawn[:, ::2] = False
    return drawn


def guesses(settings: Settings, clips: Clips) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The two simple guesses from the true positions of the given frames, each (N, T, J, 2), and
    the frames that come after a bounce which no given frame shows, bool (N, T, J).

    At the stage `temporal` a frame is between two given ones: the guesses are the earlier of them,
    and the middle of a straight line; the bounce is between the two.
    """
    true, hits = clips.positions, clips.bounces
    if settings.stage == "temporal":
        before, after = true[:, :-1:2], true[:, 2::2]
        copied, line = true.copy(), true.copy()
        copied[:, 1::2], line[:, 1::2] = before, (before + after) / 2
        bounced = np.zeros(hits.shape, bool)
        bounced[:, 1::2] = hits[:, 2::2] > hits[:, :-1:2]
        return copied, line, bounced
    first = settings.given
    room = settings.motion().room
    line = tracking.constant_velocity(true, first, room)
    return tracking.copy_last(true, first), line, hits > hits[:, first - 1 : first]


def position_errors(settings: Settings, clips: Clips, drawn: Tensor) -> dict[str, float]:
    """Distances in pixels of what a stage drew for `clips` from the truth, and of the guesses."""
    sprites = torch.from_numpy(clips.sprites)
    found = tracking.track(drawn.cpu(), sprites).numpy()
    seen = tracking.track(torch.from_numpy(clips.frames), sprites).numpy()
    where = drawn_frames(settings, clips)
    errors = {
        "tracking_error": tracking.distance(found, clips.positions, where),
        "tracker_error": tracking.distance(seen, clips.positions, where),
    }
    if settings.stage == "spatial":
        return errors
    copied, line, bounced = guesses(settings, clips)
    errors["copy_error"] = tracking.distance(copied, clips.positions, where)
    errors["velocity_error"] = tracking.distance(line, clips.positions, where)
    after = where & bounced
    if after.any():
        simple = [tracking.distance(guess, clips.positions, after) for guess in (copied, line)]
        errors["bounce_error"] = tracking.distance(found, clips.positions, after)
        errors["bounce_copy_error"], errors["bounce_velocity_error"] = simple
        errors["bounce_ratio"] = errors["bounce_error"] / min(simple)
    return errors


def psnr(drawn: Tensor, true: Tensor) -> float:
    """Peak signal-to-noise ratio in dB of uint8 clips, over all pixels together."""
    error = (drawn.float() - true.float()).square().mean().clamp(min=1e-3)
    return float(10 * torch.log10(255**2 / error))


def single(clips: Tensor) -> Tensor:
    """One frame of each clip, (N, T, C, S, S) -> (N, C, S, S): frame n mod T of clip n. Neighbours
    in time are too much alike to count as two.
    """
    index = torch.arange(len(clips), device=clips.device)
    return clips[index, index % clips.shape[1]]


class _Frames:
    """The judge's features of single frames, as FeatureDistance asks for them."""

    def __init__(self, model: VideoClassifier) -> None:
        self.features = model.frame_features


class Distances:
    """Frechet distances of clips from test clips, over the features of a judge trained here."""

    def __init__(self, run: Run, train: Clips, test: Clips, steps: int) -> None:
        classes = 1 + int(max(train.labels.max(), test.labels.max()))
        x, y = (torch.from_numpy(clips.frames).to(run.device) for clips in (train, test))
        self.model = judge.train_judge(x, train, classes, run.autocast, steps)
        self.accuracy, self.velocity = judge.skill(self.model, y, test, classes)
        x = x[: max(REFERENCE, 2 * len(y))]
        # They need nothing of a classifier but its features, of clips as well as of pictures.
        self.clips = FeatureDistance(cast(Any, self.model), x, y, len(y))
        frames = cast(Any, _Frames(self.model))
        self.frames = FeatureDistance(frames, single(x), single(y), len(y))

    def __call__(self, drawn: Tensor) -> dict[str, float]:
        """fvd_lab and frame_distance of clips, uint8 (N, T, C, S, S), and those of real ones."""
        return {
            "fvd_lab": self.clips(drawn),
            "fvd_lab_real": self.clips.real,
            "frame_distance": self.frames(single(drawn)),
            "frame_distance_real": self.frames.real,
            "judge_accuracy": self.accuracy,
            "judge_velocity_error": self.velocity,
        }


def beside(true: Tensor, drawn: Tensor, given: np.ndarray, count: int = 8) -> list[np.ndarray]:
    """Frames (H, W, 3) of a GIF: true clips above, drawn ones below.

    true and drawn: uint8 (N, T, C, S, S). A frame of which `given`, bool (T,), is True has a light
    ground: there the lower one is a copy.
    """
    side = true.shape[-1]
    scale = max(1, 96 // side)
    shown = []
    for t in range(drawn.shape[1]):
        sheet = np.full(
            (2 * side + 3, count * (side + 1) + 1, 3), 120 if given[t] else 30, np.uint8
        )
        for row, clips in enumerate((true, drawn)):
            for column in range(min(count, len(drawn))):
                picture = clips[column, t].cpu().numpy().transpose(1, 2, 0)
                top, left = 1 + row * (side + 1), 1 + column * (side + 1)
                sheet[top : top + side, left : left + side] = picture
        shown.append(sheet.repeat(scale, axis=0).repeat(scale, axis=1))
    return shown


def strip(true: Tensor, drawn: Tensor, count: int = 4) -> Tensor:
    """Pictures of a grid with T columns: each true clip, and below it the drawn one."""
    return torch.stack([true[:count].cpu(), drawn[:count].cpu()], dim=1).flatten(0, 2)


def enlarged(clips: Tensor) -> Tensor:
    """The simplest super-resolution: means of 2 x 2 pixels, each repeated four times."""
    return enlarge(shrink(clips.float())).round().to(torch.uint8)
