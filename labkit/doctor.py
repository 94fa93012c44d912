"""`lab doctor`: can this machine run the lab, and does its arithmetic agree with float64?

Exit code 0 when a run can be expected to work, warnings or not; 1 when something is broken.
"""

from __future__ import annotations

import math
import os
import re
import shutil
import sys
import tempfile
import tomllib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

from labkit import paths
from labkit.machine import device

if TYPE_CHECKING:
    import torch

Status = Literal["ok", "warning", "broken"]

LITTLE_DISK_GB = (1.0, 10.0)
"""Free space below which runs will break, and below which the doctor warns."""
STEPS = 5
"""Optimizer steps over which the devices are compared."""
FP32_TOLERANCE = 1e-4
"""Relative loss difference to float64 that fp32 on the CPU must stay under; 1e-7 is usual."""


@dataclass(frozen=True)
class Finding:
    """One line of the report."""

    check: str
    status: Status
    text: str


def doctor() -> int:
    """Print the report; returns the exit code."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    findings = list(examine())
    colour = {"ok": "green", "warning": "yellow", "broken": "bold red"}
    table = Table("Check", "", "Finding")
    for finding in findings:
        status = f"[{colour[finding.status]}]{finding.status}[/]"
        table.add_row(finding.check, status, escape(finding.text))
    out = Console(highlight=False)
    out.print(table)
    broken = [finding.check for finding in findings if finding.status == "broken"]
    ready = "ready; type: python -m diffusion.train +size=tiny"
    out.print(f"broken: {', '.join(broken)}" if broken else ready)
    return 1 if broken else 0


def examine() -> Iterator[Finding]:
    """All findings, in the order of the report. A check that raises is a finding, too."""
    checks: list[Callable[[], Iterator[Finding]]] = [
        check_python,
        check_packages,
        check_data,
        check_disk,
        check_network,
        check_devices,
        check_arithmetic,
    ]
    for check in checks:
        try:
            yield from check()
        except Exception as error:  # a check that raises does not end the report
            name = check.__name__.removeprefix("check_")
            yield Finding(name, "broken", f"{type(error).__name__}: {error}")


def check_python() -> Iterator[Finding]:
    """Whether Python is of a version that pyproject.toml allows."""
    from packaging.specifiers import SpecifierSet

    allowed = project().get("requires-python", ">=3.11,<3.14")
    version = ".".join(map(str, sys.version_info[:3]))
    if SpecifierSet(allowed).contains(version):
        yield Finding("python", "ok", version)
    else:
        yield Finding("python", "broken", f"{version}; install one that is {allowed}")


def check_packages() -> Iterator[Finding]:
    """Installed versions against constraints.txt; what pyproject.toml requires must be there."""
    pins = read_pins(paths.ROOT / "constraints.txt")
    if not pins:
        yield Finding("packages", "warning", "no constraints.txt in the clone to compare with")
        return
    required = {_canonical(re.split(r"[^\w.-]", item)[0]) for item in project()["dependencies"]}
    installed = {name: _installed(name) for name in pins.keys() | required}
    missing = sorted(name for name in required if installed[name] is None)
    other = [
        f"{name} {version} (tested with {pins[name]})"
        for name, version in sorted(installed.items())
        if version is not None and version != pins.get(name, version)
    ]
    if missing:
        yield Finding("packages", "broken", f"missing: {', '.join(missing)}; type: lab setup")
    elif other:
        yield Finding("packages", "warning", f"not the tested versions: {', '.join(other)}")
    else:
        same = sum(version is not None for version in installed.values())
        yield Finding("packages", "ok", f"{same} installed, all of the tested versions")


def read_pins(file: Path) -> dict[str, str]:
    """`name==version` lines of a constraints file."""
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    found = (re.match(r"([\w.-]+)\s*==\s*([\w.!+-]+)", line.strip()) for line in lines)
    return {_canonical(match[1]): match[2].partition("+")[0] for match in found if match}


def _canonical(name: str) -> str:
    """A package's name in the spelling of the packaging standard."""
    return re.sub(r"[-_.]+", "-", name).lower()


def _installed(name: str) -> str | None:
    """Installed version without a local part such as +cu130."""
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def project() -> dict[str, Any]:
    """The [project] table of pyproject.toml."""
    text = (paths.ROOT / "pyproject.toml").read_text(encoding="utf-8")
    return dict(tomllib.loads(text)["project"])


def check_data() -> Iterator[Finding]:
    """Where datasets are looked for, which are there, and which copies are damaged."""
    from labkit.data import available, damaged

    named = os.environ.get("LAB_DATA")
    if named and not paths.data_folders()[0].is_dir():
        yield Finding("LAB_DATA", "broken", f"{named} is not a folder; fix it, or: unset LAB_DATA")
    else:
        yield Finding("LAB_DATA", "ok", named or "not set: datasets are downloaded into data/")
    faults = damaged()
    for name, fault in faults.items():
        yield Finding(name, "broken", fault)
    found = {name: source for name, source in available().items() if name not in faults}
    here = [name for name, source in found.items() if source and source != "embedded"]
    embedded = [name for name, source in found.items() if source == "embedded"]
    absent = [name for name, source in found.items() if not source]
    parts = [("here", here), ("embedded", embedded), ("to be downloaded", absent)]
    text = "; ".join(f"{title}: {', '.join(names)}" for title, names in parts if names)
    yield Finding("datasets", "ok", text)


def check_disk() -> Iterator[Finding]:
    """Free space for runs, and permission to write there."""
    home = paths.home()
    folder = next(path for path in (home, *home.parents) if path.exists())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"x")
        yield Finding("output", "ok", f"runs, results and artifacts go to {home}")
    except OSError as error:
        why = error.strerror or error
        text = f"{home} cannot be written to ({why}); set LAB_HOME to a folder that can"
        yield Finding("output", "broken", text)
    free = shutil.disk_usage(folder).free / 1e9
    needed, comfortable = LITTLE_DISK_GB
    status: Status = "broken" if free < needed else "warning" if free < comfortable else "ok"
    yield Finding("disk", status, f"{free:.0f} GB free")


def check_network() -> Iterator[Finding]:
    """Whether the hosts that datasets come from answer; all are asked at once, for four seconds."""
    from labkit.data.fetch import NETWORK_SECONDS, offline, reachable
    from labkit.data.registry import REAL

    if offline():
        yield Finding("network", "ok", "LAB_OFFLINE is set: nothing will be downloaded")
        return
    urls = {urlsplit(entry.url).netloc: entry.url for entry in REAL.values()}
    with ThreadPoolExecutor(len(urls)) as pool:
        answers = dict(zip(urls, pool.map(reachable, urls.values()), strict=True))
    silent = [host for host, answered in answers.items() if not answered]
    if silent:
        text = f"no answer within {NETWORK_SECONDS:g} s from {', '.join(silent)}"
        yield Finding("network", "warning", f"{text}; datasets that are here still work")
    else:
        yield Finding("network", "ok", f"{', '.join(answers)} answer")


def check_devices() -> Iterator[Finding]:
    """What there is to compute on, and in which precision `precision=auto` will."""
    import torch

    def words(kind: str) -> str:
        about = device.describe(kind)
        at = torch.device(kind)
        native = "in hardware" if device.has_native_bf16(at) else "emulated, so fp32 is used"
        cores = f", {about['cores']} cores" if kind == "cpu" else ""
        return f"{about['name']}{cores}; bf16 {native}"

    yield Finding("cpu", "ok", words("cpu"))
    accelerator = device.accelerator()
    if accelerator is None:
        text = "none: tiny runs are made for this; full-size ones want a rented GPU (lab plan)"
        yield Finding("accelerator", "ok", text)
        return
    memory = ""
    if accelerator == "cuda":
        memory = f"; {torch.cuda.get_device_properties(0).total_memory / 1e9:.0f} GB"
    yield Finding("accelerator", "ok", f"{accelerator}: {words(accelerator)}{memory}")


def check_arithmetic() -> Iterator[Finding]:
    """A few training steps in every precision and device here, compared with float64 on the CPU."""
    import torch

    reference = losses("cpu", torch.float64)
    fp32 = divergence(losses("cpu", torch.float32), reference)
    bf16 = divergence(losses("cpu", torch.float32, autocast=True), reference)
    what = f"loss of {STEPS} steps of a small CNN against float64"
    text = f"{what}: fp32 differs by {fp32:.1e}; for scale, bf16 by {bf16:.1e}"
    yield Finding("cpu arithmetic", "ok" if fp32 <= FP32_TOLERANCE else "broken", text)
    accelerator = device.accelerator()
    if accelerator is None:
        yield Finding("divergence", "ok", "no accelerator here to compare with the CPU")
        return
    there = divergence(losses(accelerator, torch.float32), reference)
    limit = max(bf16, FP32_TOLERANCE)
    verdict = f"fp32 differs from the CPU's float64 by {there:.1e}"
    if there <= limit:
        yield Finding("divergence", "ok", f"{accelerator}: {verdict}")
    else:
        text = f"{accelerator}: {verdict}, more than bf16 would; do not trust it: type device=cpu"
        yield Finding("divergence", "broken", text)


def divergence(found: list[float], reference: list[float]) -> float:
    """Largest relative difference of two series of losses; infinite where one is not a number."""
    differences = [abs(a - b) / abs(b) for a, b in zip(found, reference, strict=True)]
    return max(differences) if all(map(math.isfinite, differences)) else math.inf


def losses(kind: str, dtype: torch.dtype, autocast: bool = False) -> list[float]:
    """Training losses of a small CNN under AdamW, from the same weights and batch every time."""
    import torch
    from torch import nn

    generator = torch.Generator().manual_seed(0)
    x = torch.rand(32, 1, 16, 16, generator=generator, dtype=torch.float64)
    y = torch.randint(10, (32,), generator=generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding=1, bias=False), nn.BatchNorm2d(16), nn.ReLU(),
            nn.MaxPool2d(2), nn.Conv2d(16, 32, 3, padding=1), nn.ReLU(), nn.AvgPool2d(8),
            nn.Flatten(), nn.Linear(32, 10),
        )  # fmt: skip
    model = model.to(kind, dtype) if kind != "mps" else model.to(dtype).to(kind)
    x, y = x.to(dtype).to(kind), y.to(kind)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2)
    series = []
    for _ in range(STEPS):
        with torch.autocast(kind, torch.bfloat16, enabled=autocast):
            loss = nn.functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        series.append(float(loss.detach()))
    return series


if __name__ == "__main__":
    sys.exit(doctor())
