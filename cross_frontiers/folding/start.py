"""What a run begins with: chains by their names, optimisers for a model."""

from __future__ import annotations

import torch
from torch import nn

from cross_frontiers.folding.pdb import Chain, read_chain
from labkit import Run, UsageError
from labkit.data import ProteinData
from labkit.learning.muon import Muon, others
from labkit.show.console import warn
from labkit.text import closest


def structures(run: Run, name: str) -> ProteinData:
    """The set of structures. Raises UsageError and DataError as run.data() does, in which the
    setting has its name here.
    """
    try:
        return run.data(name, ProteinData)
    except UsageError as error:
        raise type(error)(str(error).replace("data=", "proteins=")) from error


def chains_of(data: ProteinData, names: list[str]) -> list[Chain]:
    """The chains that are named, such as 1AKI or 1K6P:B; with no names, all entries' first ones.

    What a file lacks is said. Raises UsageError for an entry that is not there, and as `read_chain`
    does.
    """
    found = []
    for name in names or list(data.structures):
        entry, _, letter = name.partition(":")
        if entry not in data.structures:
            known = list(data.structures)
            raise UsageError(
                f"chains={name}: {data.name} has no entry {entry}{closest(entry, known)} It has "
                f"{', '.join(known)}; for another one put {entry}.pdb into proteins/pdb of LAB_DATA"
            )
        chain = read_chain(data.structures[entry], entry, letter or None)
        for warning in chain.warnings:
            warn(warning)
        found.append(chain)
    return found


def optimizers_of(
    model: nn.Module, lr: float, muon_lr: float, weight_decay: float, precision: str
) -> list[torch.optim.Optimizer]:
    """AdamW for embeddings, gains, biases and the heads, Muon for the matrices of the blocks."""
    inside = ("blocks", "structure.attention", "structure.transition")
    matrices = [
        parameter
        for name, parameter in model.named_parameters()
        if parameter.dim() == 2 and any(word in name for word in inside)
    ]
    return [
        torch.optim.AdamW(others(model, matrices), lr, (0.9, 0.95), weight_decay=0, fused=True),
        Muon(
            matrices, muon_lr, weight_decay=weight_decay, adjust_lr_fn="match_rms_adamw",
            precision=precision,
        ),
    ]  # fmt: skip


def set_rates(optimizers: list[torch.optim.Optimizer], share: float) -> None:
    """Set each learning rate to this share of its peak."""
    for optimizer in optimizers:
        for group in optimizer.param_groups:
            group["lr"] = share * optimizer.defaults["lr"]
