"""The optimisers: AdamW, or AdamW and Muon together.

Muon (Jordan et al. 2024; `labkit.learning.muon`) makes every update of a weight matrix nearly
orthogonal: all directions move by the same amount. It needs fewer steps than AdamW and is for the
matrices inside the layers only; embeddings, norms and biases stay with AdamW. Week 7 implements it
by hand and explains why it works.
"""

from typing import Literal

import torch
from torch import nn

from labkit.learning.muon import Muon, others
from transformers_lab.model import Transformer

Optimizers = dict[str, torch.optim.Optimizer]


def build(
    model: Transformer,
    kind: Literal["adamw", "muon"],
    lr: float,
    lr_muon: float,
    decay: float,
    precision: str = "auto",
) -> Optimizers:
    """The optimisers of this model by name: `adamw`, and `muon` if `kind` says so.

    Args:
        lr, lr_muon: initial learning rates.
        decay: weight decay of both.
        precision: with fp32 Muon computes in fp32 as well.
    """
    halves: tuple[nn.Module, ...] = (model.encoder, model.decoder)
    matrices = [p for half in halves for p in half.parameters() if p.dim() == 2]
    if kind == "adamw":
        matrices = []
    # Section 5.3 has Adam with these betas; weight decay is not in the paper.
    adamw = torch.optim.AdamW(
        others(model, matrices), lr, betas=(0.9, 0.98), weight_decay=decay, fused=True
    )
    if not matrices:
        return {"adamw": adamw}
    muon = Muon(matrices, lr_muon, weight_decay=decay, precision=precision)
    return {"adamw": adamw, "muon": muon}
