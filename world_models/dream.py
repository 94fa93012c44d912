"""The dream: M in place of the environment.

Ha & Schmidhuber 2018, section 4. M's state is the world. It predicts the next latent as a mixture,
and the dream draws from it at a temperature: above 1 the dream is harder than reality, and what the
controller learns there carries over; below 1 the dream is nearly deterministic, and the controller
finds what M is wrong about (section 4.5).

Letters: P candidates, E dreams of each, D latents.
"""

from __future__ import annotations

import torch
from torch import Tensor

from labkit import exercise
from world_models import controller, mdn
from world_models.rnn import MDNRNN, State


@exercise(minutes=15)
def dream_return(reward: Tensor, ended: Tensor) -> Tensor:
    """The return of each dream: the sum of its rewards until it ends.

    Step t counts if no earlier step ended the dream. The step that ends it does not count either:
    M learns the rewards of steps after which an episode goes on.

    Args:
        reward: (T, ...), predicted for each step, also after an end.
        ended: (T, ...) bool: whether the dream ended at step t. It may be true several times. No
            argument is changed.
    Returns:
        (...), in the type of `reward`; 0 for T = 0.
    """
    alive = ended.cumsum(dim=0) == 0
    return torch.where(alive, reward, 0).sum(dim=0)


class Features:
    """What the controller sees: z, and the state of a recurrent network that watches along.

    `watcher` is M (the paper's full model), an untrained M, or None (V alone).
    """

    def __init__(self, latent: int, watcher: MDNRNN | None) -> None:
        self.watcher = watcher
        self.count = latent + (0 if watcher is None else watcher.hidden)

    def begin(self, batch: int) -> State | None:
        """The watcher's state before the first frame."""
        return None if self.watcher is None else self.watcher.blank(batch)

    def of(self, z: Tensor, state: State | None) -> Tensor:
        """Latents (B, D) and the watcher's state -> (B, F)."""
        return z if state is None else torch.cat([z, state[0]], dim=-1)

    def after(self, z: Tensor, action: Tensor, state: State | None) -> State | None:
        """The watcher's state after it has seen a frame and what was done."""
        if self.watcher is None or state is None:
            return None
        return self.watcher.step(z, action, state)


@torch.no_grad()
def dreamed(
    model: MDNRNN,
    features: Features,
    parameters: Tensor,
    starts: Tensor,
    horizon: int,
    temperature: float,
    generator: torch.Generator,
) -> Tensor:
    """Returns (P, E) of controllers (P, n) in dreams that begin at latents `starts` (E, D).

    All candidates dream with the same random numbers, which come from `generator`, a CPU's: what
    differs between them is then what they do.
    """
    P, (E, D) = len(parameters), starts.shape
    device = starts.device
    z, state, seen = starts.repeat(P, 1), model.blank(P * E), features.begin(P * E)
    shared = seen is not None and features.watcher is model  # M watches its own dream
    rewards, ends = [], []
    for _ in range(horizon):
        uniform = torch.rand(E, D + 1, generator=generator).to(device).repeat(P, 1)
        normal = torch.randn(E, D, generator=generator).to(device).repeat(P, 1)
        before = features.of(z, state if shared else seen)
        action = controller.act(parameters, before.view(P, E, -1)).view(P * E, -1)
        seen = None if shared else features.after(z, action, seen)
        state = model.step(z, action, state)
        prediction = model.predict(state[0])
        z = mdn.sample(prediction.latent, temperature, uniform[:, :D], normal)
        rewards.append(prediction.reward)
        ends.append(uniform[:, D] < prediction.end.sigmoid())
    return dream_return(torch.stack(rewards), torch.stack(ends)).view(P, E)
