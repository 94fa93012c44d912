"""Pictures to train on, and when to stop: Madry et al. 2018, Wong, Rice and Kolter 2020.

Adversarial training minimises the loss at the worst point near each picture: the inner maximum is
approached by PGD, or by a single step from a random start (FGSM-RS), which costs as much as one
more step of training.

Letters: B batch, C channels, H height, W width.
"""

from typing import Any

import torch
from torch import Tensor, nn

from robustness.attacks import ascent, gradient, project, random_start


def attacked(
    model: nn.Module, x: Tensor, y: Tensor, epsilon: float, steps: int, size: float
) -> Tensor:
    """Pictures (B, C, H, W) within epsilon of x after `steps` steps of `size` from a random start.

    Unlike `attacks.pgd` it also moves pictures that are wrong already: training wants the worst
    point, not the first wrong one. The start is not clipped to [0, 1], as in Wong et al. 2020, so
    that pictures of black background keep the whole range of random starts.
    """
    now = x + random_start(x, epsilon, "linf")
    for _ in range(steps):
        moved = now + size * ascent(gradient(model, now, y), "linf")
        now = (x + project(moved - x, epsilon, "linf")).clamp(0, 1)
    return now


class Best:
    """The weights that resisted best so far, and whether training has broken down since.

    FGSM-RS can fail suddenly: within a few hundred steps the network resists a single step
    perfectly and PGD not at all (catastrophic overfitting). Only PGD on held-out pictures shows it.
    """

    def __init__(self, fall: float) -> None:
        """`fall` is by how many points the accuracy may be below its best."""
        self.fall, self.accuracy = fall, -1.0
        self.weights: dict[str, Tensor] = {}

    def broken(self, model: nn.Module, accuracy: float) -> bool:
        """Remember the model if it is the best; True if it is `fall` points or more below it."""
        if accuracy >= self.accuracy:
            self.accuracy = accuracy
            self.weights = {k: v.detach().clone() for k, v in model.state_dict().items()}
        return accuracy <= self.accuracy - self.fall

    def restore(self, model: nn.Module) -> None:
        """Give the model its best weights back."""
        with torch.no_grad():
            model.load_state_dict(self.weights)

    def state_dict(self) -> dict[str, Any]:
        return {"accuracy": self.accuracy, "weights": self.weights}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.accuracy, self.weights = state["accuracy"], state["weights"]
