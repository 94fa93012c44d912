"""A trained network ready to draw clips, at one of the three stages of the cascade.

    base       the first frames -> a whole clip; or nothing -> a clip    few, small frames
    temporal   a clip -> the same with a frame between every two         twice the rate
    spatial    a clip -> the same at twice the side                      twice the resolution

(Ho et al. 2022, "Imagen Video", section 2.2.) Both super-resolution networks are trained on what is
given to them with a random amount of noise, and told how much ("noise conditioning augmentation",
section 2.4). When they are chained, what they are given was drawn by another network: the noise
covers its faults, which they have never seen.
"""

import contextlib
import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from diffusion import RectifiedFlow, from_pictures, to_pictures
from labkit import UsageError
from labkit.learning.weights import check_finite, opening
from video_generation.data import Motion
from video_generation.flow import augmented, given_frames, predictor, training_noise
from video_generation.model import VideoUNet

Autocast = Callable[[], contextlib.AbstractContextManager[Any]]


def shrink(x: Tensor) -> Tensor:
    """Half the side, each pixel the mean of four: float (B, T, C, H, W) -> (B, T, C, H/2, W/2)."""
    return F.avg_pool2d(x.flatten(0, 1), 2).unflatten(0, x.shape[:2])


def enlarge(x: Tensor) -> Tensor:
    """Twice the side, each pixel four times: (B, T, C, H, W) -> (B, T, C, 2H, 2W)."""
    return x.repeat_interleave(2, dim=-2).repeat_interleave(2, dim=-1)


def halved(clips: Tensor) -> Tensor:
    """`shrink` of uint8 clips."""
    return shrink(clips.float()).round().to(torch.uint8)


@dataclass(frozen=True)
class Settings:
    """The settings needed, with the weights, to draw; fields as in the week's Config."""

    stage: str
    frames: int
    side: int
    given: int
    augmentation: float
    sampler: str
    sampling_steps: int
    channels: int

    @property
    def level(self) -> float:
        """Noise put into what a super-resolution network is given: half of the most in training."""
        return 0.0 if self.stage == "base" else self.augmentation / 2

    def motion(self, objects: int = 1) -> Motion:
        """How the clips that this stage makes move. A temporal network draws a frame between every
        two of the base network's; a spatial network doubles the side of those.
        """
        fast, large = self.stage != "base", self.stage == "spatial"
        return Motion(
            frames=2 * self.frames - 1 if fast else self.frames,
            side=2 * self.side if large else self.side,
            objects=objects,
            rate=2 if fast else 1,
        )


class Pipeline:
    """Draws clips."""

    def __init__(
        self, network: VideoUNet, settings: Settings, autocast: Autocast = contextlib.nullcontext
    ) -> None:
        self.network, self.settings, self.autocast = network, settings, autocast

    def predict(self, clips: Tensor, seed: int = 0) -> Tensor:
        """Continue clips, uint8 (N, T', C, S, S): the first `given` frames stay, and what follows
        is drawn, up to the network's T frames. Later frames of `clips` are not looked at.

        Raises UsageError when a clip is shorter than the frames needed, or its pictures do not fit.
        """
        s = self.settings
        self._check(clips, s.given, s.side)
        window = clips.new_zeros(len(clips), s.frames, *clips.shape[2:])
        window[:, : s.given] = clips[:, : s.given]
        given = given_frames(len(clips), s.frames, "base", s.given)
        return self._draw(window, given, seed)

    def generate(self, n: int, seed: int = 0) -> Tensor:
        """n clips of nothing given, uint8 (n, T, C, S, S)."""
        s = self.settings
        window = torch.zeros(n, s.frames, s.channels, s.side, s.side, dtype=torch.uint8)
        return self._draw(window, given_frames(n, s.frames, "base", 0), seed)

    def between(self, clips: Tensor, seed: int = 0) -> Tensor:
        """Clips (N, frames, C, S, S) -> (N, 2 frames - 1, C, S, S), frames drawn in between."""
        s = self.settings
        self._check(clips, s.frames, s.side)
        wide = clips.new_zeros(len(clips), 2 * s.frames - 1, *clips.shape[2:])
        wide[:, ::2] = clips[:, : s.frames]
        return self._draw(wide, given_frames(len(wide), wide.shape[1], "temporal", 0), seed)

    def larger(self, clips: Tensor, seed: int = 0) -> Tensor:
        """Clips (N, T, C, S, S) -> (N, T, C, 2 S, 2 S)."""
        s = self.settings
        self._check(clips, s.motion().frames, s.side)
        given = given_frames(len(clips), clips.shape[1], "base", 0)
        return self._draw(enlarge(clips), given, seed, low=True)

    def _check(self, clips: Tensor, frames: int, side: int) -> None:
        found = tuple(clips.shape)
        if len(found) != 5 or found[2:] != (self.settings.channels, side, side):
            raise UsageError(
                f"clips of shape {found} do not fit this network: it needs (clips, frames, "
                f"{self.settings.channels}, {side}, {side})"
            )
        if found[1] < frames:
            raise UsageError(
                f"a video of {found[1]} frames is shorter than the model's window: this network "
                f"needs {frames}. Give a longer one, or train with fewer: given={found[1]}"
            )

    @torch.no_grad()
    def _draw(
        self, clips: Tensor, given: Tensor, seed: int, low: bool = False, batch_size: int = 125
    ) -> Tensor:
        """The same seed draws the same clips. Noise is drawn on the CPU, so that a seed means the
        same on every device.
        """
        s, device = self.settings, next(self.network.parameters()).device
        generator, process = torch.Generator().manual_seed(seed), RectifiedFlow()
        drawn = []
        for part, where in zip(clips.split(batch_size), given.split(batch_size), strict=True):
            clip, where = from_pictures(part.to(device)), where.to(device)
            noise = training_noise(clip, generator)
            level = torch.full((len(clip),), s.level, device=device)
            foggy = augmented(clip, level, generator)
            also = {"low": foggy, "level": level} if low else {}
            with self.autocast():
                x = process.sample(
                    predictor(self.network, foggy, where, level, also),
                    noise, s.sampling_steps, s.sampler, generator,
                )  # fmt: skip
            drawn.append(to_pictures(torch.where(where[:, :, None, None, None], clip, x)))
        return torch.cat(drawn)

    def save(self, folder: Path) -> None:
        """Write `model.safetensors` and `config.json` into `folder`, which is made if need be."""
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        weights = {k: v.detach().cpu().contiguous() for k, v in self.network.state_dict().items()}
        save_file(weights, folder / "model.safetensors")
        config = {"network": self.network.shape, "settings": asdict(self.settings)}
        (folder / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

    @classmethod
    def load(cls, folder: Path | str, device: torch.device | str = "cpu") -> "Pipeline":
        """The pipeline that a run saved. Raises UsageError, which names the folder and what is
        wrong with it, when it holds none.
        """
        from safetensors.torch import load_file

        fix = "Train one: python -m video_generation.train +size=tiny"
        with opening(folder, "video model", fix):
            config = json.loads(Path(folder, "config.json").read_text(encoding="utf-8"))
            network = VideoUNet(**config["network"])
            network.load_state_dict(load_file(Path(folder, "model.safetensors")))
            settings = Settings(**config["settings"])
        check_finite(network, folder)
        return cls(network.to(device).eval().requires_grad_(False), settings)
