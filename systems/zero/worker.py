"""One process of a ZeRO run: its rows of each batch, its piece of the model's states."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from pretraining import GPT, Shape
from systems.zero.memory import live_bytes
from systems.zero.ring import Ring
from systems.zero.stages import Zero

LOW = {"fp32": torch.float32, "bf16": torch.bfloat16}


def build_model(shape: Shape, seed: int) -> GPT:
    """The model that every process begins with, the same in each."""
    torch.manual_seed(seed)
    return GPT(shape)


class Worker:
    """What `Cluster` calls by name."""

    def __init__(
        self, ring: Ring, shape: Shape, stage: int, weights: str, lr: float, clip: float, seed: int
    ) -> None:
        self.ring, self.clip = ring, clip
        self.others = live_bytes()  # a forked process begins with what its leader held
        self.model = build_model(shape, seed)
        self.zero = Zero(self.model, list(self.model.blocks), ring, stage, LOW[weights], lr)

    def step(self, x: np.ndarray, y: np.ndarray, look: bool) -> dict[str, float]:
        """Forward, backward and update on rows (b, T) of the batch. Returns the loss of the whole
        batch, the gradient's norm and the numbers sent; with `look` also the bytes held when
        gradients are there."""
        before = self.ring.elements
        logits = self.model(torch.from_numpy(x)).float()
        loss = F.cross_entropy(logits.flatten(0, 1), torch.from_numpy(y).flatten())
        loss.backward()
        del logits
        found = {"loss": float(self.ring.total(loss.detach())) / self.ring.ranks}
        del loss
        if look:
            found["bytes"] = float(live_bytes() - self.others)
        found["norm"] = float(self.zero.update(self.clip))
        found["sent"] = float(self.ring.elements - before)
        return found

    def weights(self) -> dict[str, np.ndarray]:
        """The whole model's weights, float32."""
        self.zero.fetch()
        # Cloned first: a storage that NumPy has seen can never be freed again by `resize_`.
        found = {k: v.clone().float().numpy().copy() for k, v in self.model.state_dict().items()}
        self.zero.drop()
        return found

    def state_dict(self) -> dict[str, Any]:
        return self.zero.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.zero.load_state_dict(state)
