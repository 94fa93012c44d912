"""Rectified flow on clips: week 10's straight lines, with a noise level for each frame.

    x_t = (1 - t) x_0 + t eps         t of one number for all frames to be made      mix
        frames that are given:        their own small level, 0 if they are clean     training_times
    L   = E || eps - x_0 - network(x_t, t) ||^2    over the frames to be made        velocity_loss
    sampling: week 10's, with the given frames put back before every call            predictor

One noise level for the whole clip is what the sampler will ask for: it removes noise from all
frames at the same pace. Fresh noise for each frame and pixel is just as important. If the frames
of a clip shared either, the network could read the future out of its own input.

Letters: B clips, T frames, C channels, H height, W width.
"""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from labkit import exercise

Denoiser = Callable[[Tensor, float], Tensor]
"""(noisy clip, time) -> velocity, as the samplers of week 10 want it."""


def given_frames(clips: int, frames: int, stage: str, first: int) -> Tensor:
    """Which frames a network is given, bool (B, T): the `first` ones; all even ones at the stage
    `temporal`, which draws the frames between.
    """
    place = torch.arange(frames)
    given = place % 2 == 0 if stage == "temporal" else place < first
    return given.expand(clips, frames).clone()


def frame_times(t: Tensor, given: Tensor, level: Tensor) -> Tensor:
    """The noise level of each frame: `level` where it is given, t otherwise.

    Args:
        t: (B,), one time for all frames of a clip that are to be made.
        given: bool (B, T).
        level: (B,), the noise in the given frames; 0 is clean.
    Returns:
        (B, T) in the type of t.
    """
    return torch.where(given, level[:, None], t[:, None])


def mix(x0: Tensor, noise: Tensor, times: Tensor) -> Tensor:
    """The point at its time on the straight line of each frame: (1 - t) x0 + t noise.

    x0 and noise are (B, T, C, H, W) and times (B, T). The arguments stay as they are.
    """
    t = times[:, :, None, None, None]
    return (1 - t) * x0 + t * noise


@exercise(minutes=15)
def velocity_loss(velocity: Tensor, x0: Tensor, noise: Tensor, given: Tensor) -> Tensor:
    """Squared error of the velocity, dx_t / dt = noise - x0, over the frames that are not given.

    The mean is over all pixels of all such frames of the batch, so that a clip counts by how many
    frames of it are to be made. Given frames do not count at all, whatever is predicted there.

    Args:
        velocity, x0, noise: (B, T, C, H, W).
        given: bool (B, T), False at least once.
    Returns:
        ().
    """
    error = (velocity - (noise - x0)).square().mean(dim=(2, 3, 4))  # (B, T)
    return error[~given].mean()


@exercise(minutes=10)
def training_noise(x0: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Standard normal noise in the shape, type and device of x0, (B, T, C, H, W).

    Every pixel of every frame has noise of its own. It is drawn on the CPU, in float32, by one call
    of torch.randn with `generator`, so that a seed means the same on every device.
    """
    return torch.randn(x0.shape, generator=generator).to(x0)


def augmented(low: Tensor, level: Tensor, generator: torch.Generator | None = None) -> Tensor:
    """Noise conditioning augmentation (Ho et al. 2022, section 2.4): clips with some noise in them.

    (1 - level) low + level noise, as `mix` has it: one level for all frames of a clip, and
    noise of its own for every pixel of every frame, from `training_noise` with `generator`.

    Args:
        low: (B, T, C, H, W), which is not changed.
        level: (B,) in [0, 1].
    """
    times = level[:, None].expand(-1, low.shape[1])
    return mix(low, training_noise(low, generator), times)


@exercise(minutes=20)
def predictor(
    network: nn.Module, clip: Tensor, given: Tensor, level: Tensor, low: Mapping[str, Tensor]
) -> Denoiser:
    """The network with its given frames built in: a function of (x, t) for a sampler.

    The function puts the frames of `clip` where they are given into x, without changing x, and
    calls network(x, times, **low) at the times of `frame_times`. It returns the velocity in
    float32.

    Args:
        clip: (B, T, C, H, W); only its given frames are used, and they hold noise of `level`
            already.
        given: bool (B, T).
        level: (B,).
        low: what else the network takes, by name; the same at every call.
    """
    where = given[:, :, None, None, None]

    def velocity(x: Tensor, t: float) -> Tensor:
        times = frame_times(torch.full_like(level, t), given, level)
        output: Tensor = network(torch.where(where, clip, x), times, **low)
        return output.float()

    return velocity


def random_times(shape: tuple[int, ...], mean: float, deviation: float, like: Tensor) -> Tensor:
    """Times in (0, 1) whose logit is normal (Esser et al. 2024, eq. 19), float32."""
    return torch.sigmoid(mean + deviation * torch.randn(shape)).to(like.device)


@exercise(minutes=10)
def training_times(given: Tensor, level: Tensor, mean: float, deviation: float) -> Tensor:
    """The noise level of each frame of a batch of clips, for a training step: float32 (B, T).

    All frames of a clip that are to be made have one time, as when sampling. It is drawn for each
    clip by one call of `random_times` with the shape (B,). Given frames have the `level` of their
    clip. Clips whose frames are all given have no time of their own, but one is drawn all the same,
    so that the numbers of the others do not depend on them. The arguments stay as they are.

    Args:
        given: bool (B, T).
        level: (B,), float32, on the device of the result.
        mean, deviation: of the logit of the times.
    """
    return frame_times(random_times((len(given),), mean, deviation, level), given, level)


def clip_loss(
    network: nn.Module,
    x0: Tensor,
    given: Tensor,
    level: Tensor,
    mean: float,
    deviation: float,
    low: Mapping[str, Tensor],
    pictures: Tensor | None = None,
) -> Tensor:
    """The loss of a batch of clips, with pictures of other clips appended to each.

    Args:
        x0: (B, T, C, H, W) in [-1, 1].
        given: bool (B, T); level: (B,), the noise in what is given.
        mean, deviation: of the logit of the training times.
        low: what else the network takes, by name.
        pictures: (B, M, C, H, W), each with a time of its own.
    """
    times = training_times(given, level, mean, deviation)
    extra: dict[str, Any] = dict(low)
    if pictures is not None and (count := pictures.shape[1]):
        x0 = torch.cat([x0, pictures], dim=1)
        given = torch.cat([given, given.new_zeros(len(x0), count)], dim=1)
        own = random_times((len(x0), count), mean, deviation, x0)
        times = torch.cat([times, own], dim=1)
        extra["pictures"] = count
    noise = training_noise(x0)
    velocity: Tensor = network(mix(x0, noise, times), times, **extra)
    return velocity_loss(velocity.float(), x0, noise, given)
