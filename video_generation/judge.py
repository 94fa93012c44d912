"""A small classifier of clips, trained here, whose features the Frechet distance of clips is over.

The published distance, FVD (Unterthiner et al. 2018), takes the features of I3D, a network trained
on 400 kinds of human action in videos of 16 frames and more. Ours knows which objects are in a
clip, how fast and where they move, and how often they touch a wall. Its distance is named
`fvd_lab`: it cannot be compared with an FVD.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit.data import batch_indices
from pytorch_mastery import one_cycle
from video_generation.data import Clips

FEATURES = 32
PEAK = 4e-3
PIXELS = 2**17
"""Of a batch: 64 clips of 8 frames of 16 x 16."""


def _layer(channels_in: int, channels_out: int) -> nn.Sequential:
    """A 3 x 3 convolution, batch normalisation and ReLU."""
    conv = nn.Conv2d(channels_in, channels_out, 3, padding=1, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(channels_out), nn.ReLU())


class VideoClassifier(nn.Module):
    """Frames one by one, then the differences between neighbours in time.

    Input: float clips (B, T, C, S, S) in [0, 1], T of at least 2.
    """

    def __init__(self, channels: int, classes: int, width: int = 16) -> None:
        super().__init__()
        self.body = nn.Sequential(
            _layer(channels, width),
            _layer(width, 2 * width),
            nn.MaxPool2d(2),
            _layer(2 * width, 4 * width),
        )
        self.where = nn.Sequential(  # sees the place
            nn.Conv2d(4 * width, width, 1), nn.AdaptiveMaxPool2d(4), nn.Flatten()
        )
        self.frame = nn.Linear(20 * width, FEATURES)
        self.time = nn.Sequential(
            nn.Conv1d(2 * FEATURES, 2 * FEATURES, 3, padding=1),
            nn.ReLU(),
            nn.Conv1d(2 * FEATURES, 2 * FEATURES, 3, padding=1),
            nn.ReLU(),
        )
        self.embed = nn.Linear(4 * FEATURES, FEATURES)
        self.head = nn.Linear(FEATURES, classes + 3)

    def frame_features(self, pictures: Tensor) -> Tensor:
        """(N, C, S, S) in [0, 1] -> (N, 32)."""
        h = self.body(pictures)
        what = h.amax(dim=(2, 3))  # wherever it is
        features: Tensor = self.frame(torch.cat([self.where(h), what], dim=1))
        return features

    def features(self, clips: Tensor) -> Tensor:
        """(B, T, C, S, S) in [0, 1] -> (B, 32), before any ReLU, so that no feature is dead."""
        f = self.frame_features(clips.flatten(0, 1)).unflatten(0, clips.shape[:2]).transpose(1, 2)
        moves = F.pad(f.diff(dim=2), (1, 0))
        h = self.time(torch.cat([f, moves], dim=1))  # (B, 64, T)
        embedded: Tensor = self.embed(torch.cat([h.mean(dim=2), h.amax(dim=2)], dim=1))
        return embedded

    def forward(self, clips: Tensor) -> Tensor:
        """(B, classes + 3): logits of the objects present; velocity (2) and bounces."""
        out: Tensor = self.head(F.relu(self.features(clips)))
        return out


def targets(clips: Clips, classes: int, device: torch.device) -> Tensor:
    """What the classifier learns, float (N, classes + 3).

    Which classes are present; the mean velocity of the objects, in pixels per frame; and the mean
    number of bounces.
    """
    present = F.one_hot(torch.from_numpy(clips.labels), classes).amax(dim=1).float()
    velocity = torch.from_numpy(clips.velocity).float().mean(dim=1)
    bounces = torch.from_numpy(clips.bounces[:, -1]).float().mean(dim=1, keepdim=True)
    return torch.cat([present, velocity, bounces], dim=1).to(device)


def train_judge(
    frames: Tensor, clips: Clips, classes: int, autocast: Any, steps: int
) -> VideoClassifier:
    """A classifier trained on clips and `frames`, their uint8 tensor, always from the same seed:
    runs with different seeds are judged by the same network.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = VideoClassifier(frames.shape[2], classes).to(frames.device)
    wanted = targets(clips, classes, frames.device)
    scale = wanted[:, classes:].std(dim=0).clamp(min=1e-3)
    optimizer = torch.optim.AdamW(model.parameters(), PEAK, weight_decay=0.01, fused=True)
    batch = min(max(8, PIXELS // frames[0].numel()), len(frames))
    for step in range(steps):
        optimizer.param_groups[0]["lr"] = one_cycle(step, steps, PEAK, rise=0.2)
        index = torch.from_numpy(batch_indices(len(frames), batch, step, seed=0)).to(frames.device)
        with autocast():
            out = model(frames[index].float() / 255).float()
        present = wanted[index, :classes]
        presence = F.cross_entropy(out[:, :classes], present / present.sum(dim=1, keepdim=True))
        motion = ((out - wanted[index])[:, classes:] / scale).square().mean()
        optimizer.zero_grad()
        (presence + motion).backward()
        optimizer.step()
    return model.eval().requires_grad_(False)


@torch.inference_mode()
def skill(
    model: VideoClassifier, frames: Tensor, clips: Clips, classes: int
) -> tuple[float, float]:
    """How good a judge is: % of clips whose likeliest class is in them, and the mean error of the
    velocity in pixels per frame.
    """
    wanted = targets(clips, classes, frames.device)
    out = torch.cat([model(part.float() / 255) for part in frames.split(500)])
    right = wanted.gather(1, out[:, :classes].argmax(dim=1, keepdim=True)).mean()
    off = (out - wanted)[:, classes : classes + 2].norm(dim=1).mean()
    return 100 * float(right), float(off)
