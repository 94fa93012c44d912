"""Which models are trained for how long, and the one that is being trained now.

Every size gets a training of its own under every budget, with a schedule of that length: the loss
in the middle of a longer schedule is too high, and would bias the law (Hoffmann et al. 2022,
section 2).
"""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any, Literal

import torch

from labkit import UsageError
from pretraining.model import GPT, Shape
from pretraining.powerlaw import FLOPS_PER_WEIGHT

EPOCHS = 4
"""So many passes over a text are nearly as good as new text (Muennighoff et al. 2023, Scaling
Data-Constrained Language Models). No training sees its text more often.
"""

Count = Literal["all", "non_embedding"]


@dataclass(frozen=True)
class Training:
    """One model under one budget."""

    shape: Shape
    compute: float
    """The budget C, in FLOPs."""
    parameters: int
    """N, counted as `count` says."""
    steps: int
    tokens: int
    """D, the tokens that it is trained on: the whole number of steps nearest to C / 6N."""
    seed: int
    """Of its weights and batches."""


def plan(
    widths: Sequence[int],
    budgets: Sequence[float],
    ratio: Sequence[float],
    layers: int,
    head_dim: int,
    context: int,
    batch_size: int,
    vocabulary: int,
    text: int,
    count: Count = "all",
    seeds: Sequence[int] = (0,),
) -> list[Training]:
    """All trainings, budget by budget, from the smallest; each once for every seed.

    Args:
        ratio: fewest and most tokens per parameter; sizes outside are too far from a budget's best
            size to help find it.
        text: tokens in the training text.
    The others are those of `train.Config`.

    Raises UsageError when fewer than three sizes are left for a budget.
    """
    trainings: list[Training] = []
    per_step = batch_size * context
    for compute in sorted(budgets):
        for width in sorted(widths):
            shape = Shape(vocabulary, context, width, layers, max(1, width // head_dim))
            with torch.device("meta"):  # counted, not allocated
                n = GPT(shape, "modern").count_parameters(count == "all")
            steps = max(1, round(compute / (FLOPS_PER_WEIGHT * n * per_step)))
            tokens = steps * per_step
            if ratio[0] <= tokens / n <= ratio[1] and tokens <= EPOCHS * text:
                trainings += [Training(shape, compute, n, steps, tokens, seed) for seed in seeds]
        sizes = len({t.parameters for t in trainings if t.compute == compute})
        if sizes < 3:
            raise UsageError(
                f"budget {compute:g} leaves {sizes} of the sizes with {ratio[0]:g} to {ratio[1]:g} "
                f"tokens per parameter and at most {EPOCHS} passes over the text; a minimum needs "
                "three. Give other widths or budgets, or a wider ratio"
            )
    return trainings


class Ladder:
    """The model in training, its optimizer, and the validation losses so far.

    Tracked together: a checkpoint says which model it holds, so that a resumed run builds this
    model before it loads the weights.
    """

    def __init__(self, trainings: Sequence[Training], lr: float, device: torch.device) -> None:
        self.trainings, self.lr, self.device = trainings, lr, device
        self.ends = list(accumulate(training.steps for training in trainings))
        self.losses: list[float] = []
        """Validation losses in nats per token, of the trainings that are done."""
        self._begin(0)

    @property
    def steps(self) -> int:
        """Steps of all trainings together."""
        return self.ends[-1]

    @property
    def training(self) -> Training:
        """What is being trained now."""
        return self.trainings[self.index]

    def at(self, step: int) -> int:
        """The step within its own training that is step `step` of all; 0 begins the next model, and
        so does a step of another training (a rehearsal takes steps from all over the run).
        """
        index = bisect_right(self.ends, step)
        local = step - (self.ends[index - 1] if index else 0)
        if local == 0 or index != self.index:
            self._begin(index)
        return local

    def _begin(self, index: int) -> None:
        """A new model for training `index`: a function of its seed and size alone."""
        self.index = index
        torch.manual_seed(self.training.seed)
        self.model = GPT(self.training.shape, "modern").to(self.device)
        self.optimizer = torch.optim.AdamW(
            self.model.parameters(), self.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True
        )

    def state_dict(self) -> dict[str, Any]:
        """For checkpoints."""
        return {
            "index": self.index,
            "losses": self.losses,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Load what `state_dict` gave, into a new model of the size that was in training then."""
        self._begin(state["index"])
        self.losses = list(state["losses"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
