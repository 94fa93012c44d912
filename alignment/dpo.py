"""Direct preference optimisation (Rafailov et al. 2023): the loss, its slope, and a first step.

    L = -log sigmoid( beta [ (log pi(y_w|x) - log ref(y_w|x)) - (log pi(y_l|x) - log ref(y_l|x)) ] )

y_w is the preferred answer, y_l the other one, `pi` the policy that is trained and `ref` a frozen
copy of the initial model (equation 7). The brackets times beta are the difference of two implicit
rewards: no reward model is trained, and no answer is sampled. Week 16 continues from here.

Letters: N pairs.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from alignment.chat import Example, labels
from alignment.loss import sequence_logps
from alignment.packing import Batch, collate
from labkit import exercise

Pair = tuple[Example, Example]
"""The preferred answer and the other one, to one prompt."""


@exercise(minutes=15)
def dpo_loss(
    chosen: Tensor, rejected: Tensor, ref_chosen: Tensor, ref_rejected: Tensor, beta: float
) -> tuple[Tensor, Tensor]:
    """The loss of equation 7 and the reward margins.

    Args:
        chosen, rejected: log-probabilities of whole answers under the policy, (N,).
        ref_chosen, ref_rejected: the same under the reference, (N,).
        beta: strength of the penalty for deviating from the reference.
    Returns:
        The mean loss, and the margins (N,): implicit reward of the chosen answer minus that of the
        rejected one, where a reward is beta (log pi - log ref). The loss has a gradient with
        respect to `chosen` and `rejected`; the reference is a constant. No argument is changed.
    """
    margins = beta * ((chosen - ref_chosen) - (rejected - ref_rejected))
    return -F.logsigmoid(margins).mean(), margins


@exercise(minutes=10)
def dpo_slope(margins: Tensor, beta: float) -> Tensor:
    """Derivative of the mean loss with respect to the chosen answers' log-probabilities, (N,).

    Section 4, "What does the DPO update do?": -beta sigmoid(-margin), here divided by N. Pairs that
    are ordered wrongly weigh most. For the rejected answers it is the same with the other sign. It
    is for inspection only: no gradient flows through it.
    """
    return -beta * torch.sigmoid(-margins) / len(margins)


def pair_batches(pairs: Sequence[Pair], device: Any) -> tuple[Batch, Batch]:
    """The chosen and the rejected answers, one per row."""
    sides = zip(*pairs, strict=True)
    chosen, rejected = (
        collate(side, [labels(e) for e in side], max(len(e.tokens) for e in side), False,
                device=device)
        for side in sides
    )  # fmt: skip
    return chosen, rejected


def first_step(
    model: Any, train: Sequence[Pair], held_out: Sequence[Pair], beta: float, lr: float, device: Any
) -> dict[str, float]:
    """One step of AdamW on `train`: the loss before it and the mean margin on `held_out` after it.

    The reference is the model before the step, so the loss must begin at log 2.
    """
    batches = {"train": pair_batches(train, device), "test": pair_batches(held_out, device)}
    model.eval().requires_grad_(True)
    with torch.no_grad():
        ref = {name: [sequence_logps(model, b) for b in two] for name, two in batches.items()}
    optimizer = torch.optim.AdamW(model.parameters(), lr, weight_decay=0.0)
    chosen, rejected = (sequence_logps(model, b) for b in batches["train"])
    loss, _ = dpo_loss(chosen, rejected, ref["train"][0], ref["train"][1], beta)
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()
    with torch.no_grad():
        chosen, rejected = (sequence_logps(model, b) for b in batches["test"])
    _, margins = dpo_loss(chosen, rejected, ref["test"][0], ref["test"][1], beta)
    return {"dpo_first_loss": loss.item(), "dpo_margin": margins.mean().item()}
