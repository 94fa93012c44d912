"""The recurrent state-space model of DreamerV2: a world model whose latents are categorical.

Hafner et al. 2020, Mastering Atari with Discrete World Models, arXiv:2010.02193, section 2.

    h_t = f(h_t-1, z_t-1, a_t-1)      deterministic: a GRU
    z_t ~ q(z_t | h_t, x_t)           posterior, S groups of C classes; sees the frame
    z_t ~ p(z_t | h_t)                prior, a guess without it; what the imagination draws from
    x_t, r_t, c_t                     frame, reward and whether the episode goes on, from (h_t, z_t)

    loss = -log p(x_t) - log p(r_t) - log p(c_t) + beta KL(q || p)

In place of a frame x_t may be V's latents of it, which are a vector of D numbers.

Letters: T frames, B sequences, S groups, C classes, H units of h.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from labkit import exercise
from world_models.controller import ACTIONS
from world_models.rnn import REWARD_SCALE
from world_models.settings import DreamerSettings
from world_models.vae import channels_first, conv_decoder, conv_encoder


class Belief(NamedTuple):
    """The model's state."""

    hidden: Tensor  # (..., H)
    latent: Tensor  # (..., S, C), one-hot in each group

    @property
    def features(self) -> Tensor:
        """(..., H + S C): what heads, actor and critic see."""
        return torch.cat([self.hidden, self.latent.flatten(-2)], dim=-1)


@exercise(minutes=15)
def straight_through(logits: Tensor, uniform: Tensor) -> Tensor:
    """One-hot draws that let gradients through to the probabilities (algorithm 1).

    The value is exactly the one-hot vector of a class drawn by `uniform`: class k where the
    cumulative sum of the probabilities softmax(logits) up to k is the first one above it (the last
    class where rounding leaves none). The gradient is that of the probabilities themselves.

    Args:
        logits: (..., C), any real numbers.
        uniform: (...), in [0, 1). No argument is changed.
    Returns:
        (..., C), in the type of the logits.
    """
    share = logits.softmax(dim=-1)
    passed = (share.detach().cumsum(dim=-1) <= uniform.unsqueeze(-1)).sum(dim=-1)
    classes = logits.shape[-1]
    drawn = F.one_hot(passed.clamp(max=classes - 1), classes).to(logits.dtype)
    return drawn + (share - share.detach())


@exercise(minutes=20)
def balanced_kl(posterior: Tensor, prior: Tensor, balance: float) -> Tensor:
    """KL(q || p) whose two sides learn at different rates (section 2, algorithm 2).

        balance KL(sg(q) || p) + (1 - balance) KL(q || sg(p))

    sg stops the gradient. At balance 0.8 the prior moves towards the posterior four times as fast
    as the posterior moves towards a prior that is not good yet. The value does not depend on
    `balance`.

    Args:
        posterior, prior: logits of q and p, (..., S, C): S independent groups of C classes. They
            need not be normalised; no argument is changed.
        balance: from 0 to 1.
    Returns:
        (...), in nats, summed over the groups.
    """

    def kl(q: Tensor, p: Tensor) -> Tensor:
        q, p = q.log_softmax(dim=-1), p.log_softmax(dim=-1)
        return (q.exp() * (q - p)).sum(dim=(-2, -1))

    return balance * kl(posterior.detach(), prior) + (1 - balance) * kl(posterior, prior.detach())


def head(inputs: int, hidden: int, outputs: int) -> nn.Sequential:
    """One hidden layer."""
    return nn.Sequential(nn.Linear(inputs, hidden), nn.ELU(), nn.Linear(hidden, outputs))


def eyes(shape: tuple[int, ...], width: int, hidden: int, features: int) -> list[nn.Sequential]:
    """Encoder to `hidden` numbers, and decoder from `features`, of what is seen: frames (side,
    side, 3) or vectors (D,).
    """
    if len(shape) == 1:
        return [head(*shape, hidden, hidden), head(features, hidden, *shape)]
    encoder = conv_encoder(shape[0], width, hidden)
    # PyTorch's own initialisation shrinks the differences between frames from layer to layer; the
    # LayerNorm behind it would then see one and the same vector in every frame, and the draws of
    # the latents would be noise that the decoder learns to ignore.
    for layer in encoder.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    return [encoder, conv_decoder(shape[0], width, features)]


def centred(seen: Tensor) -> Tensor:
    """Frames uint8 (B, H, W, 3) as float32 (B, 3, H, W) from -0.5 to 0.5; vectors as they are."""
    return channels_first(seen) - 0.5 if seen.dtype == torch.uint8 else seen


class Experience(NamedTuple):
    """B windows of T steps, and the frame after the last one."""

    frame: Tensor  # (T + 1, B, H, W, 3) uint8, or V's latents (T + 1, B, D)
    action: Tensor  # (T, B, 3)
    reward: Tensor  # (T, B)
    terminated: Tensor  # (T, B) bool
    valid: Tensor  # (T, B) bool


class RSSM(nn.Module):
    """The world model."""

    def __init__(self, shape: tuple[int, ...], settings: DreamerSettings) -> None:
        """`shape` is that of what is seen: (side, side, 3) or (D,)."""
        super().__init__()
        self.settings = settings
        H, self.groups, self.classes = settings.hidden, settings.groups, settings.classes
        flat = self.groups * self.classes
        encoder, self.decoder = eyes(shape, settings.width, H, H + flat)
        self.encoder = nn.Sequential(encoder, nn.LayerNorm(H))
        self.enter = nn.Sequential(nn.Linear(flat + ACTIONS, H), nn.ELU())
        self.cell = nn.GRUCell(H, H)
        self.prior_head = head(H, H, flat)
        self.posterior_head = head(2 * H, H, flat)
        # Logits near 0 would make every draw pure noise, and the decoder would learn to ignore it
        # before the encoder has learned anything: they begin large enough to tell frames apart.
        nn.init.orthogonal_(self.posterior_head[-1].weight, gain=4.0)  # type: ignore[arg-type]
        self.reward_head = head(H + flat, H, 1)
        self.goes_on_head = head(H + flat, H, 1)

    def blank(self, batch: int) -> Belief:
        """Before the first frame of an episode."""
        weight = self.cell.weight_hh
        return Belief(
            weight.new_zeros(batch, self.settings.hidden),
            weight.new_zeros(batch, self.groups, self.classes),
        )

    def forward_step(self, belief: Belief, action: Tensor) -> tuple[Tensor, Tensor]:
        """h_t (B, H) and the prior's logits (B, S, C), from what was before and action (B, 3)."""
        entered = self.enter(torch.cat([belief.latent.flatten(1), action], dim=-1))
        hidden = self.cell(entered, belief.hidden)
        return hidden, self._logits(self.prior_head(hidden))

    def imagine(self, belief: Belief, action: Tensor) -> Belief:
        """The next state, without seeing a frame."""
        hidden, prior = self.forward_step(belief, action)
        uniform = torch.rand(prior.shape[:-1], device=prior.device)
        return Belief(hidden, straight_through(prior, uniform))

    def see(self, belief: Belief, action: Tensor, embedded: Tensor, first: Tensor) -> Seen:
        """The next state, from an embedded frame (B, H) as well. In rows where `first` (B,) is
        true an episode begins: what was before is forgotten, the action too.
        """
        begins = first.unsqueeze(-1)
        belief = Belief(
            belief.hidden.masked_fill(begins, 0), belief.latent.masked_fill(begins[..., None], 0)
        )
        hidden, prior = self.forward_step(belief, action.masked_fill(begins, 0))
        posterior = self._logits(self.posterior_head(torch.cat([hidden, embedded], dim=-1)))
        uniform = torch.rand(posterior.shape[:-1], device=posterior.device)
        return Seen(Belief(hidden, straight_through(posterior, uniform)), posterior, prior)

    def embed(self, seen: Tensor) -> Tensor:
        """uint8 (B, H, W, 3), or float32 (B, D) -> (B, H)."""
        out: Tensor = self.encoder(centred(seen)).float()
        return out

    def _logits(self, flat: Tensor) -> Tensor:
        return flat.float().unflatten(-1, (self.groups, self.classes))

    def loss(self, data: Experience) -> tuple[dict[str, Tensor], Belief]:
        """The loss and its parts, means over frames; and the states of all frames, (T + 1, B)."""
        T, B = data.reward.shape
        embedded = self.embed(data.frame.flatten(0, 1)).unflatten(0, (T + 1, B))
        ended = torch.cat([torch.ones_like(data.valid[:1]), ~data.valid])  # (T + 1, B)
        action = torch.cat([torch.zeros_like(data.action[:1]), data.action])
        belief, rows = self.blank(B), []
        for t in range(T + 1):
            rows.append(self.see(belief, action[t], embedded[t], ended[t]))
            belief = rows[-1].belief
        beliefs = Belief(
            torch.stack([row.belief.hidden for row in rows]),
            torch.stack([row.belief.latent for row in rows]),
        )
        features = beliefs.features
        guess = self.decoder(features.flatten(0, 1)).float()
        error = (guess - centred(data.frame.flatten(0, 1))).square()
        arrived = features[1:]  # a reward is that of the step which led here
        steps = data.valid.float()
        reward = self.reward_head(arrived).squeeze(-1)
        goes_on = self.goes_on_head(arrived).squeeze(-1)
        lasting = steps * ~data.terminated
        kl = balanced_kl(
            torch.stack([row.posterior for row in rows]), torch.stack([row.prior for row in rows]),
            self.settings.balance,
        )  # fmt: skip
        parts = {
            "picture": error.flatten(1).sum(dim=1).mean(),
            "reward": ((reward - data.reward / REWARD_SCALE).square() * lasting).sum()
            / lasting.sum().clamp(min=1),
            "end": F.binary_cross_entropy_with_logits(goes_on, lasting, weight=steps),
            "kl": kl.mean(),
        }
        weights = {"picture": self.settings.error_weight, "kl": self.settings.beta}
        parts["loss"] = sum(
            (weights.get(name, 1.0) * part for name, part in parts.items()), torch.tensor(0.0)
        )
        return parts, beliefs

    def rewards(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Reward, in units of REWARD_SCALE, and probability that the episode goes on: (...), for
        features (..., F) of the states that the steps led to.
        """
        reward = self.reward_head(features).squeeze(-1)
        return reward, self.goes_on_head(features).squeeze(-1).sigmoid()


class Seen(NamedTuple):
    """A state that has seen its frame, and the logits (B, S, C) of both distributions."""

    belief: Belief
    posterior: Tensor
    prior: Tensor
