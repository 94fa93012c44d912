"""Can a weak judge be helped by two who argue? (Irving et al. 2018, section 3.2)

The judge sees six pixels of a digit. Two debaters who see all of it have each claimed a class, one
of them the true one; they reveal pixels in turn, and the judge then says which claim it believes.

    guess       six random pixels, no debater
    consult     one liar alone reveals all six, for a false claim
    debate      the liar and the honest one in turn

Letters: N images, D pixels, K classes, C candidates.
"""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import exercise
from labkit.learning.modes import evaluating


def random_pixels(images: Tensor, count: int, generator: torch.Generator) -> Tensor:
    """Masks of `count` different bright pixels of each image, bool (N, D); images are (N, D).

    Where there are fewer bright ones, dark ones follow.
    """
    order = torch.rand(images.shape, generator=generator) + (images > 0.5)
    mask = torch.zeros(images.shape, dtype=torch.bool)
    return mask.scatter_(1, order.topk(count, dim=1).indices, True)


@exercise(minutes=15)
def judge_input(images: Tensor, mask: Tensor) -> Tensor:
    """What the judge sees: the revealed pixels, and which ones they are: (N, 2 D).

    The first D numbers are the pixels, with 0 where nothing is revealed; the other D are 1 where a
    pixel is revealed and 0 elsewhere. Without these, a dark pixel that was revealed would look like
    one that was not.

    Args:
        images: float (N, D) in [0, 1]. mask: bool (N, D). Neither is changed.
    """
    shown = mask.to(images.dtype)
    return torch.cat([images * shown, shown], dim=1)


class Judge(nn.Module):
    """Claims of a class from few pixels: (N, 2 D) -> logits (N, K)."""

    def __init__(self, pixels: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(2 * pixels, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, classes),
        )  # fmt: skip

    def forward(self, seen: Tensor) -> Tensor:
        out: Tensor = self.net(seen)
        return out


def judge_loss(
    judge: Judge, images: Tensor, labels: Tensor, pixels: int, generator: torch.Generator
) -> Tensor:
    """Cross-entropy on random pixels, as many as in a debate: the judge has seen no debate."""
    mask = random_pixels(images, pixels, generator)
    return F.cross_entropy(judge(judge_input(images, mask)), labels)


def reveal(judge: Judge, image: Tensor, mask: Tensor, claim: int, against: int) -> int:
    """The pixel of an image (D,) that helps a claim most against another, one move ahead.

    Debaters may only reveal bright pixels that are not yet revealed.
    """
    free = ((image > 0.5) & ~mask).nonzero().flatten()  # (C,)
    tried = mask.repeat(len(free), 1)
    tried[torch.arange(len(free)), free] = True
    logits = judge(judge_input(image.expand(len(free), -1), tried))
    return int(free[(logits[:, claim] - logits[:, against]).argmax()])


def play(
    judge: Judge,
    image: Tensor,
    truth: int,
    lie: int,
    moves: int,
    who: Literal["debate", "consult"],
    liar_first: bool,
) -> bool:
    """Whether the judge believes the truth after `moves` pixels; only the two claims count."""
    mask = torch.zeros(image.shape, dtype=torch.bool)
    with evaluating(judge):
        for move in range(moves):
            if not ((image > 0.5) & ~mask).any():
                break
            lies = who == "consult" or (move % 2 == 0) == liar_first
            claims = (lie, truth) if lies else (truth, lie)
            mask[reveal(judge, image, mask, *claims)] = True
        logits = judge(judge_input(image[None], mask[None]))[0]
    return bool(logits[truth] > logits[lie])
