"""What a ZeRO run shows.

loss_gap         largest difference between the loss of the processes and of one alone (nats)
gradient_ratio   norm of the gradient, processes over one alone, at the first step: 1
memory_ratio     bytes of model states that a process really holds, over the paper's formula: 1
state_bytes      the same, for each parameter
volume           numbers that a process sends in a step, in units of Ψ (n - 1)/n: 2 or 3
valid_loss       nats per token of the validation text
"""

from __future__ import annotations

import torch
from torch import Tensor

from labkit import Run
from pretraining import GPT, negative_log_likelihood
from systems.zero.figures import memory_bars
from systems.zero.memory import model_state_bytes
from systems.zero.ranks import Cluster

BYTES = {"fp32": (4, 4, 8), "bf16": (2, 2, 12)}
"""Of weights, gradients and optimiser for each parameter. In float32 the weights are the copy."""
TOKENS = 20_000
"""Of the validation text."""


def report(
    run: Run, cluster: Cluster, alone: GPT, valid: Tensor, end: int, seen: dict[str, float],
    stage: int, ranks: int, weights: str,
) -> dict[str, float]:  # fmt: skip
    """The run's metrics; draws samples/loss.png and samples/memory.png. `end`: the token that the
    text begins after."""
    count = alone.count_parameters()
    each = BYTES[weights]
    formula = model_state_bytes(count, ranks, stage, *each)
    trained = GPT(alone.shape)
    state = {k: torch.from_numpy(v) for k, v in cluster.call("weights")[0].items()}
    trained.load_state_dict(state)
    part = valid[:TOKENS]
    nats = negative_log_likelihood(trained, part, end)
    bars = {}
    for s in range(4):
        zeros = [[each[i] if i == j else 0 for j in range(3)] for i in range(3)]
        parts = [model_state_bytes(1, ranks, s, *z) for z in zeros]
        bars[f"stage {s}"] = (parts[0], parts[1], parts[2])
    run.figure("memory", memory_bars(bars, (f"stage {stage}", seen["bytes"] / count)))
    run.plot("loss", "train/loss", "train/loss_alone")
    return {
        "loss_gap": seen["loss_gap"],
        "gradient_ratio": seen["gradient_ratio"],
        "memory_ratio": seen["bytes"] / formula,
        "state_bytes": seen["bytes"] / count,
        "volume": seen["sent"] / count * ranks / max(1, ranks - 1),
        "valid_loss": nats / len(part),
    }
