"""What a processor can do: its instruction set, physical cores and frequency, without torch.

How fast a run is depends on these, and not on the name: "AMD EPYC" is a processor with AVX2 only
and one with AVX512-bf16. In increasing order:

    x86    sse, avx, avx2, avx512, bf16 (AVX512-bf16), amx
    Arm    neon, sve, bf16

The environment variables that hold libraries back to an older instruction set count as well:
ONEDNN_MAX_CPU_ISA (matrix products and convolutions of PyTorch) and ATEN_CPU_CAPABILITY (the rest
of it). With both you can try an older processor here; `make test-avx2` does.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from collections.abc import Collection, Mapping
from functools import cache
from pathlib import Path

X86 = ("sse", "avx", "avx2", "avx512", "bf16", "amx")
"""Instruction sets of x86; each includes those before it, as far as the lab can use them."""

_FLAGS = {
    "amxbf16": "amx",
    "avx512bf16": "bf16",
    "avx512f": "avx512",
    "avx2": "avx2",
    "avx": "avx",
    "sse2": "sse",
    "bf16": "bf16",  # Arm's name of it
    "sve": "sve",
    "asimd": "neon",
    "neon": "neon",
}
"""Names of features, without underscores, best first; and what the lab calls them."""


def instruction_set(
    features: Collection[str] | None = None, environment: Mapping[str, str] = os.environ
) -> str | None:
    """The best instruction set that the numeric libraries may use here; None if it is not known.

    Args:
        features: names as in /proc/cpuinfo; this processor's when None.
        environment: the variables that hold libraries back.
    """
    names = {name.lower().replace("_", "") for name in features or _features()}
    best = next((_FLAGS[name] for name in _FLAGS if name in names), None)
    if best not in X86:
        return best
    limits = [_onednn_limit(environment), _aten_limit(environment), best]
    return min((limit for limit in limits if limit), key=X86.index)


def _onednn_limit(environment: Mapping[str, str]) -> str | None:
    asked = environment.get("ONEDNN_MAX_CPU_ISA") or environment.get("DNNL_MAX_CPU_ISA") or ""
    for mark, name in (
        ("AMX", "amx"), ("BF16", "bf16"), ("FP16", "bf16"), ("AVX10", "bf16"),
        ("AVX512", "avx512"), ("AVX2", "avx2"), ("AVX", "avx"), ("SSE41", "sse"),
    ):  # fmt: skip
        if mark in asked.upper():
            return name
    return None


def _aten_limit(environment: Mapping[str, str]) -> str | None:
    asked = environment.get("ATEN_CPU_CAPABILITY", "").lower()
    return {"avx2": "avx2", "default": "sse"}.get(asked)


@cache
def _features() -> frozenset[str]:
    """Names of what the processor can do, from the sources that this system has."""
    for line in _cpuinfo().splitlines():
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return frozenset(value.split())
    if (torch := sys.modules.get("torch")) is not None:
        known = torch.cpu.get_capabilities()
    else:
        from numpy._core import _multiarray_umath  # type: ignore[attr-defined]

        known = _multiarray_umath.__cpu_features__
    names = {name for name, has in known.items() if has is True}
    return frozenset(names | ({"neon"} if platform.machine().lower() == "arm64" else set()))


@cache
def _cpuinfo() -> str:
    """/proc/cpuinfo; empty where there is none."""
    try:
        return Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""


def name() -> str:
    """The processor's name as its maker gives it."""
    found = re.search(r"^model name\s*:\s*(.+)$", _cpuinfo(), re.MULTILINE)
    return found[1].strip() if found else platform.processor() or platform.machine()


def logical_cores() -> int:
    """Processors that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def physical_cores(system: Path = Path("/sys/devices/system/cpu")) -> int:
    """Cores that this process may run on: two threads of one core share its arithmetic."""
    if not hasattr(os, "sched_getaffinity"):
        return logical_cores()
    cores = set()
    for number in os.sched_getaffinity(0):
        topology = system / f"cpu{number}" / "topology"
        try:
            package = (topology / "physical_package_id").read_text().strip()
            cores.add((package, (topology / "core_id").read_text().strip()))
        except OSError:
            return logical_cores()
    return len(cores)


def gigahertz(system: Path = Path("/sys/devices/system/cpu")) -> float | None:
    """The processor's highest frequency, or its current one where only that is known, in GHz."""
    try:
        kilohertz = float((system / "cpu0" / "cpufreq" / "cpuinfo_max_freq").read_text())
        return round(kilohertz / 1e6, 1)
    except (OSError, ValueError):
        pass
    if found := re.search(r"@ *([\d.]+) *GHz", name()):
        return round(float(found[1]), 1)
    found = re.search(r"^cpu MHz\s*:\s*([\d.]+)", _cpuinfo(), re.MULTILINE)
    return round(float(found[1]) / 1e3, 1) if found else None
