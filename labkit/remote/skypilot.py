"""SkyPilot's Python API, as far as `device=sky://H100:1` needs it: prices, a machine, its queue of
jobs, and its end. `spot.py` has the calls for managed jobs.
"""

from __future__ import annotations

import importlib
import re
import shlex
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from labkit.errors import RunFailed, UsageError
from labkit.machine.address import Sky
from labkit.plan.gpus import prices
from labkit.remote.registry import Job
from labkit.show.console import say, warn

CEILING = 1.5
"""A machine may cost so much more than the lowest price that was shown: other regions cost more."""
DISK_GB = 100
"""Disk of a machine: PyTorch, data, checkpoints."""
INSTALL = "pip install 'skypilot[gcp]>=0.14'   # or [aws], [azure], [runpod], [lambda] ..."
CHECK = "sky check"
SETUP = """
for LAB_PYTHON in python3.13 python3.12 python3.11 ~/.local/bin/python3.12; do
    command -v "$LAB_PYTHON" >/dev/null 2>&1 && break
    LAB_PYTHON=
done
if [ -z "$LAB_PYTHON" ]; then
    command -v uv >/dev/null 2>&1 || curl -LsSf https://astral.sh/uv/install.sh | sh
    PATH="$HOME/.local/bin:$PATH" uv python install 3.12
    LAB_PYTHON="$HOME/.local/bin/python3.12"
fi
command -v rsync >/dev/null 2>&1 || sudo apt-get install -y rsync
"""
"""What is made on a new machine first: many images have Python 3.10, and the lab needs 3.11."""


def library() -> Any:
    """SkyPilot. Raises UsageError, with what to type, when it is not installed."""
    try:
        return importlib.import_module("sky")
    except ImportError as error:
        raise UsageError(
            f"device=sky:// needs SkyPilot, which is not installed here; type: {INSTALL}\n"
            f"and then: {CHECK}"
        ) from error


def machine(sky: Any, address: Sky, most: float) -> Any:
    """The task that only asks for the machine, for at most so many dollars an hour.

    Raises UsageError for what SkyPilot refuses.
    """
    place = "/".join(filter(None, (address.cloud, address.region))) or None
    try:
        asked = sky.Resources(
            infra=place, accelerators={address.gpu: address.count}, use_spot=address.spot,
            disk_size=DISK_GB, max_hourly_cost=round(most, 2),
        )  # fmt: skip
        task = sky.Task(name="lab", setup=SETUP)
        task.set_resources(asked)
    except Exception as error:  # SkyPilot raises ValueError and several types of its own
        raise UsageError(f"SkyPilot refuses {address}: {error}") from error
    return task


def offer(sky: Any, address: Sky) -> float:
    """Show the lowest price among the clouds that SkyPilot may use, in dollars an hour.

    Raises UsageError when there is no such cloud, or none has the machine.
    """
    enabled = [str(name).lower() for name in done(sky, sky.client.sdk.enabled_clouds())]
    if not enabled or (address.cloud is not None and address.cloud not in enabled):
        which = "no cloud" if not enabled else f"{', '.join(enabled)} but not {address.cloud}"
        raise UsageError(f"SkyPilot may use {which}; to see why, and what to type: {CHECK}")
    found = done(
        sky,
        sky.list_accelerators(
            name_filter=f"^{re.escape(address.gpu)}$", quantity_filter=address.count,
            clouds=[address.cloud] if address.cloud else enabled, case_sensitive=False,
        ),
    )  # fmt: skip
    every = [one for several in found.values() for one in several]
    priced = [(one.spot_price if address.spot else one.price, one) for one in every]
    priced = [(price, one) for price, one in priced if price is not None and price > 0]
    if not priced:
        raise UsageError(
            f"none of {', '.join(enabled)} offers {address.count} x {address.gpu}"
            f"{' as spot machine' if address.spot else ''}; what they have: sky gpus list"
        )
    price, best = min(priced, key=lambda pair: float(pair[0]))
    kind = " (spot)" if address.spot else ""
    say(
        f"{address.count} x {address.gpu}{kind}: from ${price:.2f} an hour ({best.cloud}, "
        f"{best.region}); one that costs more than ${CEILING * price:.2f} is not taken"
    )
    say(f"For comparison, the lab's table of {prices().date}: {_table()}")
    return float(price)


def _table() -> str:
    return ", ".join(f"{gpu.name} ${gpu.usd_per_hour:.2f}" for gpu in prices().gpus)


def rent(sky: Any, job: Job, task: Any, idle_minutes: int) -> None:
    """Start the machine. It has an autostop from the first moment: torn down when idle; and, where
    the cloud can do that, stopped with its disk kept, so that files can be fetched later.
    """
    say(f"asking for the machine ({job.cluster}); this takes some minutes ...")
    request = sky.launch(
        task, cluster_name=job.cluster, idle_minutes_to_autostop=idle_minutes, down=True
    )
    _, handle = done(sky, request)
    got = handle.launched_resources
    job.usd_per_hour = float(got.get_cost(3600))
    job.save()
    say(f"{got.cloud} {got.instance_type} in {got.region}: ${job.usd_per_hour:.2f} an hour")
    feature = sky.clouds.CloudImplementationFeatures
    try:
        got.cloud.check_features_are_supported(got, {feature.STOP, feature.AUTOSTOP})
    except Exception:  # NotSupportedError of SkyPilot
        warn(
            f"{got.cloud} cannot keep a stopped machine: {idle_minutes} minutes after the run's "
            "end it is torn down with all files. Keep this command open, or fetch in time"
        )
        return
    done(sky, sky.autostop(job.cluster, idle_minutes, down=False))


def confirm(yes: bool) -> None:
    """Ask before money is spent. Raises UsageError when there is nobody to ask, or for a no."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise UsageError("nothing was rented: nobody is here to say yes; type: remote.yes=true")
    say("Rent it? Type yes:")
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise UsageError("nothing was rented")


def done(sky: Any, request: Any) -> Any:
    """The result of a request, with its output shown. Raises UsageError for what SkyPilot says."""
    try:
        return sky.stream_and_get(request)
    except Exception as error:  # SkyPilot raises several types of its own
        name = type(error).__name__
        hint = f"\nType: {CHECK}" if "Cloud" in name or "cloud" in str(error) else ""
        raise UsageError(f"SkyPilot: {error or name}{hint}") from error


def alias(cluster: str) -> str:
    """The name by which ssh knows a machine of SkyPilot: `sky status` writes it into ssh's
    configuration.
    """
    program = Path(sys.executable).with_name("sky")
    command = [str(program) if program.exists() else "sky", "status", cluster]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True, timeout=300)
    except (OSError, subprocess.SubprocessError) as error:
        said = getattr(error, "stderr", "") or str(error)
        raise UsageError(f"the address of {cluster} is not known: {said.strip()}") from error
    return cluster


def queue(sky: Any, job: Job, variables: dict[str, str]) -> None:
    """Give the run to the machine's own queue of jobs, so that it does not count as idle."""
    log = shlex.quote(f"{job.folder}/log")
    command = f"{shlex.join([*job.script, 'supervise', job.folder])} >> {log} 2>&1"
    task = sky.Task(name="lab", run=command, secrets=variables or None)
    done(sky, sky.exec(task, cluster_name=job.cluster))


def down(job: Job) -> None:
    """Tear a machine down. When that fails, say how, loudly: it costs money."""
    if job.cluster is None:
        return
    sky = library()
    try:
        sky.stream_and_get(sky.down(job.cluster))
    except Exception as error:
        if type(error).__name__ != "ClusterDoesNotExist":
            warn(
                f"{job.cluster} could not be torn down ({error}). IT STILL COSTS MONEY. Type: "
                f"sky down {job.cluster}"
            )
            job.save()
            return
    say(f"{job.cluster} is torn down; it cost about ${job.cost or 0:.2f}")
    job.cluster, job.ended = None, time.time()
    job.save()


def wake(job: Job) -> None:
    """Start a machine again that its autostop has stopped, so that its files can be fetched.

    Raises RunFailed when it does not exist any more.
    """
    sky = library()
    found = done(sky, sky.status(cluster_names=[job.cluster]))
    if not found:
        job.cluster, job.ended = None, job.ended or time.time()
        job.save()
        raise RunFailed(f"the machine of {job.id} does not exist any more")
    if "STOPPED" in str(found[0]["status"]):
        say(f"{job.cluster} stopped by itself after the run; starting it to fetch the files ...")
        done(sky, sky.start(job.cluster))
        alias(str(job.cluster))
