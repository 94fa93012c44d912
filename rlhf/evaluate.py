"""What a policy is worth: its own answers to held-out prompts, judged and compared.

    gold     the judge of the generated language, a programme: what people would have wanted
    proxy    a learned reward model: what PPO and best-of-n are told
    kl       KL of the policy's answers to the reference's, in nats for a whole answer

Over-optimisation (Gao et al. 2023): beyond some KL the proxy still rises and gold falls.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from labkit.data.sets import replies
from labkit.learning.modes import evaluating
from pretraining import GPT
from rlhf.kl import token_kl
from rlhf.preferences import Pair, Rows, answer_logps, in_batches, table
from rlhf.reward_model import RewardModel
from rlhf.sample import respond, texts_of
from rlhf.start import GENERATED

UNFINISHED = 1.0
"""What an answer loses that never ended."""


@dataclass
class Examiner:
    """Judges policies on held-out prompts.

    `data` names the set; only the generated one has a judge.
    """

    data: str
    reference: GPT
    tokenizer: Any
    answer: int
    reward: RewardModel | None = None

    @property
    def end(self) -> int:
        """The end-of-text token."""
        return int(self.tokenizer.eos_token_id)

    def gold(self, prompts: Sequence[list[int]], rows: Rows) -> Tensor:
        """The judge's score of each answer, float64 (N,)."""
        asked = [self.tokenizer.decode(prompt) for prompt in prompts]
        given = texts_of(rows, self.tokenizer, self.end)
        scores = [
            replies.score(prompt, text) - (0.0 if ended else UNFINISHED)
            for prompt, (text, ended) in zip(asked, given, strict=True)
        ]
        return torch.tensor(scores, dtype=torch.float64)

    def answers(self, policy: GPT, prompts: Sequence[list[int]], seed: int) -> Rows:
        """One answer to each prompt; the same seed draws the same."""
        generator = torch.Generator(self.reference.embedding.weight.device).manual_seed(seed)
        return respond(policy, prompts, self.answer, self.end, generator)

    def look(self, policy: GPT, prompts: Sequence[list[int]], seed: int) -> dict[str, float]:
        """KL, and gold and proxy where there are such, of fresh answers to `prompts`."""
        return self.judged(policy, prompts, self.answers(policy, prompts, seed))

    def judged(self, policy: GPT, prompts: Sequence[list[int]], rows: Rows) -> dict[str, float]:
        """The same of answers `rows` that `policy` gave to `prompts`."""
        with evaluating(policy, self.reference):
            kl = token_kl(policy, self.reference, rows).sum(dim=1).mean()
        found = {"kl": kl.item()}
        if self.data == GENERATED:
            found["gold"] = self.gold(prompts, rows).mean().item()
        if self.reward is not None:
            found["proxy"] = in_batches(self.reward, self.reward, rows, 256).mean().item()
        return found


def implicit_accuracy(policy: GPT, reference: GPT, pairs: Sequence[Pair], device: Any) -> float:
    """Share (%) of held-out pairs whose chosen answer has the larger log-ratio to the reference.

    That log-ratio, times beta, is the reward that a policy implies: Rafailov et al. 2023, equation
    5. A policy that is its reference prefers nothing: ties count half, so it has 50 %.
    """
    rows = table(pairs, device)
    known = [in_batches(m, partial(answer_logps, m), rows, 256) for m in (policy, reference)]
    ratio = known[0] - known[1]  # (P, 2)
    chosen, rejected = ratio[:, 0], ratio[:, 1]
    ahead = (chosen > rejected).double() + (chosen == rejected).double() / 2
    return 100 * ahead.mean().item()


def win_rate(ours: Tensor, theirs: Tensor) -> float:
    """Share (%) of prompts for which our score is higher; ties count half. Both are (N,)."""
    return 100 * ((ours > theirs).double() + (ours == theirs).double() / 2).mean().item()


def overoptimisation(gold: Sequence[float]) -> float:
    """How far the gold reward has fallen from its highest look to its last."""
    return max(gold) - gold[-1]
