"""Which device, and which precision; and the machine in the words of a record."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from labkit.errors import UsageError
from labkit.machine import address, processor, threads

if TYPE_CHECKING:
    import torch
from labkit.machine.ranks import world_size


def accelerator() -> str | None:
    """The accelerator that PyTorch can use here, by name, or None."""
    import torch

    if torch.cuda.is_available():
        return "cuda"
    return "mps" if torch.backends.mps.is_available() else None


def resolve(name: str) -> torch.device:
    """`auto` = cuda, then mps, then cpu; anything else must exist.

    Raises UsageError for an unknown device, or one that this machine does not have.
    """
    import torch

    if address.parse(name) is not None:
        raise UsageError(f"device={name} is a rented machine; this command computes here")
    kind, _, index = name.partition(":")
    if kind not in ("auto", "cpu", "cuda", "mps") or (index and not index.isdecimal()):
        raise UsageError(f"device={name} is not one of auto, cpu, cuda, cuda:<number>, mps")
    if kind == "auto":
        kind = accelerator() or "cpu"
        if kind == "cuda" and world_size() > 1:
            index = os.environ.get("LOCAL_RANK", "0")
    elif kind == "cuda":
        if not torch.cuda.is_available():
            raise UsageError(
                f"device={name}: PyTorch sees no CUDA device here; type device=auto or device=cpu"
            )
        if index and int(index) >= torch.cuda.device_count():
            raise UsageError(
                f"device={name}: there are only {torch.cuda.device_count()} CUDA devices, "
                "numbered from 0"
            )
    elif kind == "mps" and not torch.backends.mps.is_available():
        raise UsageError(
            "device=mps: PyTorch sees no Apple GPU here; type device=auto or device=cpu"
        )
    return torch.device(f"{kind}:{index}" if index else kind)


def has_native_bf16(device: torch.device) -> bool:
    """Whether bf16 matrix products run in hardware: emulated they are slower than fp32."""
    if device.type == "cuda":
        import torch

        return torch.cuda.get_device_capability(device)[0] >= 8
    return device.type == "cpu" and processor.instruction_set() in ("bf16", "amx")


def resolve_precision(precision: str, device: torch.device) -> str:
    """`auto` becomes bf16 where the device has it in hardware, else fp32."""
    if precision == "auto":
        return "bf16" if has_native_bf16(device) else "fp32"
    return precision


def describe(device_type: str) -> dict[str, Any]:
    """The machine in the words of a record.

    `instructions` (see processor.py), `cores` (those this process may run on), `threads` (that
    a matrix product uses) and `ghz` show how fast a processor is; its name does not. Where the
    libraries are held back to an older instruction set, `held_back` is the processor's own.
    """
    about: dict[str, Any] = {
        "device": device_type,
        "name": processor.name(),
        "cores": processor.logical_cores(),
        "physical_cores": processor.physical_cores(),
        "threads": threads.in_use(),
        "instructions": (used := processor.instruction_set()),
        "held_back": own if (own := processor.instruction_set(environment={})) != used else None,
        "ghz": processor.gigahertz(),
    }
    if device_type == "cuda":
        import torch

        about["name"] = torch.cuda.get_device_name()
    return about
