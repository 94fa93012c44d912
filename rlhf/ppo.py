"""PPO on a learned reward, with a price on the KL divergence to the reference.

    R_t = - beta (log pi(y_t) - log ref(y_t)) + [t is the last token] r(x, y)
                                                            Ouyang et al. 2022, equation 2
    A_t = GAE of R and V                                    week 13; every token is an action
    L   = - clipped objective(A) + c * clipped value loss   Schulman et al. 2017

The episode is one answer: the state is what has been written, the action the next token, and the
reward model speaks only at the end. The KL is paid token by token, so that the value head learns
where it arises.

Letters: N answers, T tokens of a row, C width.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from labkit import RunFailed, exercise
from labkit.learning.modes import evaluating
from pretraining import GPT
from reinforcement_learning import clipped_objective, gae
from rlhf.kl import kl_estimate
from rlhf.preferences import Rows, token_logps
from rlhf.reward_model import RewardModel
from rlhf.sample import respond
from rlhf.settings import PPOSettings


class Rollout(NamedTuple):
    """Answers with what was known when they were given; all (N, T) but `score` (N,)."""

    rows: Rows
    logps: Tensor
    ref_logps: Tensor
    values: Tensor
    advantages: Tensor
    targets: Tensor
    score: Tensor


@exercise(minutes=20)
def penalised_rewards(
    score: Tensor, logps: Tensor, ref_logps: Tensor, mask: Tensor, beta: float
) -> Tensor:
    """The reward of each token: minus beta times its log-ratio, plus the score at the last one.

    Ouyang et al. 2022, equation 2, without the pretraining term.

    Args:
        score: the reward model's number for each answer, (N,).
        logps, ref_logps: log-probability of each token under policy and reference, (N, T).
        mask: bool (N, T), True at the tokens of the answer, the last of which gets the score.
            Outside of it the two log-probabilities may be any finite numbers.
    Returns:
        (N, T); 0 outside of the mask. Rewards are numbers: no gradient goes through them. No
        argument is changed.
    """
    rewards = torch.where(mask, -beta * (logps - ref_logps), 0.0)
    position = torch.arange(mask.shape[1], device=mask.device)
    last = position == (position * mask).amax(dim=1, keepdim=True)
    return rewards + last * score[:, None]


@exercise(minutes=15)
def whiten(x: Tensor, mask: Tensor) -> Tensor:
    """Shift and scale the numbers inside the mask to mean 0 and standard deviation 1: (N, T).

    Mean and deviation are over all masked numbers of the batch together, not for each row; the
    variance is divided by their number (the population's), and 1e-8 is added to the deviation.
    Numbers outside of the mask do not count, whatever they are, and become 0. Advantages are
    constants of a rollout: no gradient is needed. No argument is changed.
    """
    inside = x[mask]
    scaled = (x - inside.mean()) / (inside.std(correction=0) + 1e-8)
    return torch.where(mask, scaled, 0.0)


@exercise(minutes=15)
def value_loss(value: Tensor, old: Tensor, target: Tensor, mask: Tensor, clip: float) -> Tensor:
    """Half of the mean squared error of the values, with a limit on their change: a scalar.

    For each token take the larger of two squared errors: that of `value`, and that of the value
    kept within `clip` of `old`. So nothing is gained by moving further than `clip`. The mean is
    over the tokens inside the mask. All four are (N, T); gradients are for `value`.
    """
    kept = old + (value - old).clamp(-clip, clip)
    worse = torch.maximum((value - target).square(), (kept - target).square())
    return worse[mask].mean() / 2


def advantages_of(
    rewards: Tensor, values: Tensor, mask: Tensor, lam: float
) -> tuple[Tensor, Tensor]:
    """Advantages by week 13's `gae`, and the values' targets, (N, T); gamma is 1.

    values[:, t] is that of the state in which token t was chosen. The episode ends at its last
    token; what stands before or after the answer has no advantage.
    """
    position = torch.arange(mask.shape[1])
    last = (position == (position * mask.cpu()).amax(dim=1, keepdim=True)).T.numpy()  # (T, N)
    reward, value = (x.T.cpu().numpy() for x in (rewards, values))
    after = np.concatenate([value, np.zeros_like(value[:1])])
    found = gae(reward, after, last, np.zeros_like(last), 1.0, lam)
    advantages = torch.from_numpy(found).T.to(mask.device) * mask
    return advantages, (advantages + values) * mask


class Actor(nn.Module):
    """A policy and a value head on its last states."""

    def __init__(self, policy: GPT) -> None:
        """`policy` is used, not copied. Values begin at 0."""
        super().__init__()
        self.policy = policy
        self.value = nn.Linear(policy.shape.width, 1)
        nn.init.zeros_(self.value.weight)
        nn.init.zeros_(self.value.bias)

    def forward(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """Log-probability of each token of the answers, and the value before it: (N, T) each."""
        counted = rows.mask[:, 1:]
        states = self.policy.hidden(rows.tokens[:, :-1])[counted]  # (n, C)
        logps = self.policy.logits(states).float().log_softmax(dim=-1)
        target = rows.tokens[:, 1:][counted]
        out = torch.zeros(2, *rows.mask.shape, device=logps.device)
        out[0, :, 1:][counted] = logps.gather(1, target[:, None]).squeeze(1)
        out[1, :, 1:][counted] = self.value(states).float().squeeze(1)
        return out[0], out[1]


class PPO:
    """Rounds of answering, judging and learning."""

    def __init__(
        self,
        actor: Actor,
        reference: GPT,
        reward: RewardModel,
        optimizer: torch.optim.Optimizer,
        settings: PPOSettings,
        answer: int,
        end: int,
        clip_norm: float,
    ) -> None:
        """`answer` is the maximal number of tokens of an answer, `end` the end-of-text token."""
        self.actor, self.reference, self.reward = actor, reference, reward
        self.optimizer, self.settings, self.clip_norm = optimizer, settings, clip_norm
        self.answer, self.end = answer, end

    def collect(self, prompts: Sequence[list[int]], generator: torch.Generator) -> Rollout:
        """Answer the prompts, and work out what each token was worth."""
        rows = respond(self.actor.policy, prompts, self.answer, self.end, generator)
        with evaluating(self.actor, self.reference, self.reward):
            logps, values = self.actor(rows)
            ref_logps, score = token_logps(self.reference, rows), self.reward(rows)
        if not score.isfinite().all():
            raise RunFailed(
                "the reward model gave a reward that is not finite (NaN or infinite); train it "
                "again: +experiment=reward, with a lower reward.lr"
            )
        rewards = penalised_rewards(score, logps, ref_logps, rows.mask, self.settings.beta)
        advantages, targets = advantages_of(rewards, values, rows.mask, self.settings.gae_lambda)
        advantages = whiten(advantages, rows.mask)
        return Rollout(rows, logps, ref_logps, values, advantages, targets, score)

    def update(self, rollout: Rollout, generator: torch.Generator) -> dict[str, Any]:
        """`epochs` passes over the rollout in shuffled minibatches."""
        settings, losses = self.settings, []
        for _ in range(settings.epochs):
            order = torch.randperm(len(rollout.score), generator=generator, device=generator.device)
            for index in order.chunk(settings.minibatches):
                rows = Rows(*(part[index] for part in rollout.rows))
                logps, values = self.actor(rows)
                inside = rows.mask
                gain = clipped_objective(
                    logps[inside], rollout.logps[index][inside],
                    rollout.advantages[index][inside], settings.clip,
                )  # fmt: skip
                error = value_loss(
                    values, rollout.values[index], rollout.targets[index], inside,
                    settings.value_clip,
                )  # fmt: skip
                loss = settings.value_weight * error - gain
                self.optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(self.actor.parameters(), self.clip_norm)
                self.optimizer.step()
                losses.append(torch.stack([loss.detach(), error.detach()]))
        kl = kl_estimate(rollout.logps, rollout.ref_logps, "k1").sum(dim=1).mean()
        loss, error = torch.stack(losses).mean(dim=0)
        return {
            "train/loss": loss,
            "train/value_loss": error,
            "train/reward": rollout.score.mean(),
            "train/kl": kl,
        }
