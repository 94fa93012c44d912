"""What a process must hold, by the paper's formula, and what it really holds.

Model states are weights, gradients, and what the optimiser keeps. In mixed precision with Adam that
is 2 + 2 + K bytes for each of Ψ parameters, K = 12: a float32 copy of the weight and two moments
(Rajbhandari et al. 2020, section 3.1). Activations come on top; ZeRO's stages do not change them.
"""

from __future__ import annotations

import gc

import torch

from labkit import exercise


@exercise(minutes=10)
def model_state_bytes(
    parameters: int, ranks: int, stage: int, weight: int = 2, gradient: int = 2, optimizer: int = 12
) -> float:
    """Bytes of model states in one process (Rajbhandari et al. 2020, figure 1).

    Stage 0 divides nothing among the ranks; 1 divides the optimiser's states; 2 the gradients as
    well; 3 the weights as well.

    Args:
        parameters: Ψ. stage: 0 to 3. weight, gradient, optimizer: bytes for each parameter.
    """
    return parameters * (
        weight / (ranks if stage >= 3 else 1)
        + gradient / (ranks if stage >= 2 else 1)
        + optimizer / (ranks if stage >= 1 else 1)
    )


def live_bytes() -> int:
    """Bytes of all floating-point tensors that this process holds now; each storage counts once.

    Found through Python's garbage collector, not through the code that is measured. Single numbers
    are left out: a loss may or may not be held by somebody at this moment.
    """
    gc.collect()
    storages = {}
    for thing in gc.get_objects():
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.is_floating_point():
            for tensor in (thing, thing.grad if thing.is_leaf else None):
                if tensor is None or tensor.numel() == 1:
                    continue
                if tensor.layout is torch.strided:  # sparse has none
                    storage = tensor.untyped_storage()
                    storages[storage._cdata] = storage.nbytes()
    return sum(storages.values())
