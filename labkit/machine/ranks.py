"""Under torchrun: which process this is, of how many, and what all of them agree on."""

from __future__ import annotations

import os
from typing import Any

from labkit.errors import UsageError


def rank() -> int:
    """This process among those that torchrun started; 0 when there is only one."""
    return _number("RANK", 0)


def world_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return _number("WORLD_SIZE", 1)


def _number(name: str, default: int) -> int:
    """What torchrun sets in the environment. Raises UsageError when it is not a whole number."""
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise UsageError(
            f"{name}={text} is not a whole number; torchrun sets it, or type: unset {name}"
        )
    return int(text)


def broadcast(value: Any) -> Any:
    """`value` of rank 0, on every rank; the process group is started when it has to be.

    Otherwise each rank would write into a run folder of its own.
    """
    if world_size() == 1:
        return value
    import torch
    import torch.distributed as dist

    if not dist.is_initialized():
        try:
            dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
        except ValueError as error:  # such as RANK that is not set
            raise UsageError(
                f"WORLD_SIZE={world_size()}, but the processes cannot meet ({error}); start with "
                "torchrun, or type: unset WORLD_SIZE"
            ) from error
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]
