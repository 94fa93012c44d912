"""Which device and which precision; and, under torchrun, which process this is."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from labkit.errors import UsageError
from labkit.machine import processor, threads

if TYPE_CHECKING:
    import torch


def rank() -> int:
    """This process among those that torchrun started; 0 when there is only one."""
    return _number("RANK", 0)


def world_size() -> int:
    """How many processes torchrun started; 1 without it."""
    return _number("WORLD_SIZE", 1)


def _number(name: str, default: int) -> int:
    """What torchrun tells in the environment. Raises UsageError when it is no whole number."""
    text = os.environ.get(name) or str(default)
    if not text.isdecimal():
        raise UsageError(
            f"{name}={text} is no whole number; torchrun sets it, or type: unset {name}"
        )
    return int(text)


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

    if name.startswith(("ssh://", "sky://")):
        raise UsageError(
            f"device={name}: rented machines are not built yet; "
            "run on the machine itself with device=auto"
        )
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

    `instructions` (see labkit.processor), `cores` (those this process may run on), `threads` (that
    a matrix product uses) and `ghz` tell how fast a processor is; its name does not. Where the
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


def process_memory_mb(which: str = "VmHWM") -> float:
    """Memory of this process in MB (10^6 bytes): VmRSS, now, or VmHWM, at its peak.

    Linux's ru_maxrss would not do: a process inherits it from the one that started it. Where there
    is no /proc the peak is all there is; NaN on Windows.
    """
    status = Path("/proc/self/status")
    if status.is_file():
        lines = status.read_text().splitlines()
        return next(int(line.split()[1]) for line in lines if line.startswith(which)) * 1024 / 1e6
    try:
        import resource
    except ImportError:  # Windows
        return float("nan")
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6


def keep_freed_memory() -> None:
    """Let glibc keep what is freed, instead of handing it back and asking for it again each step.

    Tensors above 128 KiB would otherwise be fresh pages every time, which the kernel clears first.
    Elsewhere than on Linux nothing happens.
    """
    if sys.platform != "linux":
        return
    import ctypes

    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
    if mallopt is not None:
        mallopt(-3, 32 << 20)  # M_MMAP_THRESHOLD, at its greatest value
        mallopt(-1, 2**31 - 1)  # M_TRIM_THRESHOLD
        mallopt(-2, 64 << 20)  # M_TOP_PAD


def broadcast(value: Any) -> Any:
    """`value` of rank 0, on every rank; the process group is started when it has to be.

    Ranks that each made up their own run folder would write a run each.
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
