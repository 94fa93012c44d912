"""The methods that learn from fixed pairs, each as one loss of a batch of pairs.

Log-probabilities under the reference never change, so they are computed once, before the first
step: a step costs one forward pass of the policy, as in supervised training.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from pretraining import GPT
from rlhf import losses
from rlhf.preferences import Pair, Rows, answer_logps, in_batches, mismatched, table
from rlhf.reward_model import bradley_terry_loss
from rlhf.start import answer_nll

REFERRING = ("dpo", "ipo", "kto")
"""Methods that compare with the reference."""


class Family:
    """The loss of one method on batches of pairs in memory."""

    def __init__(
        self,
        method: str,
        settings: Any,
        pairs: Sequence[Pair],
        reference: GPT,
        device: Any,
        needed: Tensor | None = None,
    ) -> None:
        """
        Args:
            method: sft, reward, dpo, ipo, kto, simpo or orpo; `settings` are its own.
            reference: asked once for the log-probability of every answer.
            needed: numbers of the pairs that will be used; all when left out. A loss of others
                would be NaN.
        """
        self.method, self.settings = method, settings
        self.rows = table(pairs, device)
        if method in REFERRING:
            self.reference = self._known(reference, self.rows, needed)  # (P, 2)
        if method == "kto":
            self.other = mismatched(pairs, device)
            self.other_reference = self._known(reference, self.other, needed)  # (P,)

    def __len__(self) -> int:
        return len(self.rows.mask)

    def loss(self, model: Any, index: Tensor) -> Tensor:
        """The loss of the pairs with these numbers, a scalar; `model` is a GPT or a RewardModel."""
        rows = Rows(*(part[index] for part in self.rows)).trimmed()
        if self.method == "sft":
            return answer_nll(model, rows)
        if self.method == "reward":
            return bradley_terry_loss(*model(rows).unbind(1))
        return self.preference_loss(model, rows, index)

    def preference_loss(self, policy: GPT, rows: Rows, index: Tensor) -> Tensor:
        """The loss of one of the methods of losses.py."""
        own, method = self.settings, self.method
        logps = answer_logps(policy, rows)  # (B, 2)
        chosen, rejected = logps[:, 0], logps[:, 1]
        lengths = rows.lengths()[:, 0], rows.lengths()[:, 1]
        if method == "simpo":
            return losses.simpo_loss(chosen, rejected, *lengths, own.beta, own.gamma)
        if method == "orpo":
            return losses.orpo_loss(chosen, rejected, *lengths, own.weight)
        known = self.reference[index]
        others = known[:, 0], known[:, 1]
        if method == "dpo":
            return losses.cdpo_loss(chosen, rejected, *others, own.beta, own.smoothing)
        if method == "ipo":
            return losses.ipo_loss(chosen, rejected, *others, *lengths, own.tau)
        with torch.no_grad():  # the reference point has no gradient
            other = Rows(*(part[index] for part in self.other)).trimmed()
            moved = answer_logps(policy, other) - self.other_reference[index]
        ratio = (logps - known).T.flatten()  # (2B,): the chosen answers first
        desirable = torch.arange(2 * len(index), device=ratio.device) < len(index)
        return losses.kto_loss(ratio, desirable, moved, own.beta, own.desirable, own.undesirable)

    @staticmethod
    def _known(reference: GPT, rows: Rows, needed: Tensor | None) -> Tensor:
        some = slice(None) if needed is None else needed
        found = torch.full(rows.mask.shape[:-1], torch.nan, device=rows.mask.device)
        asked = Rows(rows.tokens[some], rows.mask[some])
        found[some] = in_batches(reference, lambda part: answer_logps(reference, part), asked, 256)
        return found
