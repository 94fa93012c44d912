"""Under torchrun: which process this is, of how many, and what all of them agree on."""

from __future__ import annotations

import os
import typing
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any, TypeVar

from labkit.errors import Interrupted, RunFailed, UsageError

T = TypeVar("T")

PATIENCE = timedelta(hours=12)
"""How long a process waits for the others: rank 0 may have to train what a week needs first. When
one dies, torchrun ends the others at once."""
TORCHRUN = {
    "GROUP_RANK", "GROUP_WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE", "MASTER_ADDR",
    "MASTER_PORT", "RANK", "ROLE_RANK", "ROLE_WORLD_SIZE", "WORLD_SIZE",
}  # fmt: skip


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
        cuda = torch.cuda.is_available()
        if cuda:  # each process has its own card, also for what is exchanged here
            torch.cuda.set_device(_number("LOCAL_RANK", 0))
        try:
            dist.init_process_group("nccl" if cuda else "gloo", timeout=PATIENCE)
        except ValueError as error:  # such as RANK that is not set
            raise UsageError(
                f"WORLD_SIZE={world_size()}, but the processes cannot meet ({error}); start with "
                "torchrun, or type: unset WORLD_SIZE"
            ) from error
    box = [value]
    dist.broadcast_object_list(box, src=0)
    return box[0]


def once(function: Callable[[], T]) -> T:
    """What rank 0 gets from calling `function`, on every rank; the others wait for it.

    Raises on every rank what it raised there of the lab's own errors.
    """
    if world_size() == 1:
        return function()
    value: Any = None
    error: Exception | None = None
    if rank() == 0:
        try:
            value = function()
        except (UsageError, RunFailed, Interrupted) as raised:
            error = raised
    value, error = broadcast((value, error))
    if error is not None:
        raise error
    return typing.cast(T, value)


def alone(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """An environment, this process's own when None, without what torchrun sets: for a command that
    is a run of its own.
    """
    every = os.environ if environment is None else environment
    return {name: value for name, value in every.items() if name not in TORCHRUN}
