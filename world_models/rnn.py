"""M: an LSTM with a mixture density output, which predicts what a frame will be followed by.

Ha & Schmidhuber 2018, section 2.2 and appendix A.2. At frame t it has seen z_0, a_0 ... z_t, a_t;
its hidden state h_t+1 gives

    p(z_t+1 | z_t, a_t, h_t)   a mixture of Gaussians for each latent
    r_t                        the reward of this step
    P(end_t)                   whether the episode is over after it

The reward is learned from steps after which the episode goes on: an end brings none in a dream.

Letters: T frames, B sequences, D latents, K components, H hidden units.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import exercise
from world_models import mdn
from world_models.mdn import Mixture
from world_models.settings import RNNSettings

REWARD_SCALE = 10.0
"""Rewards are predicted in this unit, so that the three losses are of one size."""

State = tuple[Tensor, Tensor]
"""Hidden state and memory cell of the LSTM, (B, H) each."""


class Prediction(NamedTuple):
    """What M says about the step from t to t + 1."""

    latent: Mixture  # (..., D, K) each: of z_t+1
    reward: Tensor  # (...), in the environment's unit
    end: Tensor  # (...), the logit of the probability that the episode ends


class Sequence(NamedTuple):
    """B sequences of T steps."""

    z: Tensor  # (T + 1, B, D)
    action: Tensor  # (T, B, 3)
    reward: Tensor  # (T, B)
    terminated: Tensor  # (T, B) bool
    valid: Tensor  # (T, B) bool: False where the step only restarted the environment
    first: Tensor  # (T, B) bool: frame t is the first of an episode


@exercise(minutes=10)
def reset_state(state: State, first: Tensor) -> State:
    """The recurrent state before frame t: forgotten in the rows where an episode begins.

    Both parts of the state are 0 in the rows in which `first` is true, and as they were in the
    others; whatever was in a row, NaN too, is forgotten.

    Args:
        state: hidden state and memory cell, (B, H) each; not changed.
        first: (B,) bool.
    Returns:
        The two parts, in the same order, types and shapes.
    """
    hidden, cell = state
    begins = first.unsqueeze(-1)
    return hidden.masked_fill(begins, 0), cell.masked_fill(begins, 0)


class MDNRNN(nn.Module):
    """The network M."""

    def __init__(self, latent: int, actions: int, hidden: int, mixtures: int) -> None:
        super().__init__()
        self.latent, self.hidden, self.mixtures = latent, hidden, mixtures
        self.cell = nn.LSTMCell(latent + actions, hidden)
        self.head = nn.Linear(hidden, 3 * latent * mixtures + 2)

    def blank(self, batch: int) -> State:
        """The state before the first frame."""
        zeros = next(self.parameters()).new_zeros(batch, self.hidden)
        return zeros, zeros

    def step(self, z: Tensor, action: Tensor, state: State) -> State:
        """The state after one frame: (B, D), (B, 3) and (B, H) -> (B, H)."""
        new: State = self.cell(torch.cat([z, action], dim=-1), state)
        return new

    def predict(self, hidden: Tensor) -> Prediction:
        """What hidden states (..., H) say about their steps."""
        out = self.head(hidden)
        mixture, reward, end = out.split([out.shape[-1] - 2, 1, 1], dim=-1)
        parts = mixture.unflatten(-1, (3, self.latent, self.mixtures)).unbind(dim=-3)
        logits, mean, log_deviation = parts
        return Prediction(
            Mixture(logits, mean, log_deviation.clamp(-7, 7)),
            REWARD_SCALE * reward.squeeze(-1),
            end.squeeze(-1),
        )

    def unroll(self, data: Sequence) -> Prediction:
        """Predictions (T, B, ...) for all steps, the state forgotten where an episode begins."""
        state, hidden = self.blank(data.z.shape[1]), []
        for z, action, first in zip(data.z[:-1], data.action, data.first, strict=True):
            state = self.step(z, action, reset_state(state, first))
            hidden.append(state[0])
        return self.predict(torch.stack(hidden))


class Losses(NamedTuple):
    """Means over the valid steps."""

    nll: Tensor  # nats of a frame: summed over its latents
    reward: Tensor  # squared error in units of REWARD_SCALE
    end: Tensor  # cross-entropy in nats


def losses(prediction: Prediction, data: Sequence) -> Losses:
    """How well M predicts. Steps that restart the environment count for nothing."""
    valid = data.valid.float()
    steps = valid.sum()
    nll = -mdn.log_prob(prediction.latent, data.z[1:]).sum(dim=-1)
    goes_on = valid * ~data.terminated
    error = ((prediction.reward - data.reward) / REWARD_SCALE).square()
    end = F.binary_cross_entropy_with_logits(
        prediction.end, data.terminated.float(), reduction="none"
    )
    return Losses(
        (nll * valid).sum() / steps,
        (error * goes_on).sum() / goes_on.sum().clamp(min=1),
        (end * valid).sum() / steps,
    )


class MemoryLearner:
    """Trains M on windows of the streams."""

    def __init__(self, network: MDNRNN, settings: RNNSettings) -> None:
        self.network, self.settings = network, settings
        self.optimizer = torch.optim.AdamW(network.parameters(), settings.lr, fused=True)
        self.tracked = {"rnn": network, "rnn_optimizer": self.optimizer}

    def update(self, data: Sequence, rate: float) -> dict[str, Tensor | float]:
        """One step on a batch, at `rate` times the peak learning rate."""
        self.optimizer.param_groups[0]["lr"] = rate * self.settings.lr
        terms = losses(self.network.unroll(data), data)
        loss = terms.nll + terms.reward + terms.end
        self.optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.network.parameters(), 1.0)
        self.optimizer.step()
        return {
            "train/rnn_loss": loss, "train/nll": terms.nll,
            "train/reward_error": terms.reward, "train/end_error": terms.end,
        }  # fmt: skip
