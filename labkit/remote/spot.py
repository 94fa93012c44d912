"""`device=sky://T4:1?cloud=gcp&spot=true`: the run as a managed job of SkyPilot.

A spot machine may be taken away. SkyPilot then finds another and starts the job again, which
resumes from its last checkpoint: everything that the run writes is in a bucket of the cloud. The
bucket is also how its files come here.
"""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import Any

from labkit import files, paths
from labkit.errors import RunFailed, UsageError
from labkit.machine.address import Sky, parse
from labkit.records import versions
from labkit.remote import check, send, skypilot
from labkit.remote.registry import FETCHED, Job
from labkit.run import artifacts, entry, folders
from labkit.run.errand import Errand
from labkit.show.console import say

STORES = {"gcp": ("gcs", "gs"), "aws": ("s3", "s3")}
"""For each cloud whose buckets are used: SkyPilot's name of the store, and the scheme of its
addresses."""
COPY = {"gs": ("gcloud", "storage", "rsync", "-r"), "s3": ("aws", "s3", "sync")}
DELETE = {"gs": ("gcloud", "storage", "rm", "-r"), "s3": ("aws", "s3", "rb", "--force")}
HOME = "/lab-home"
"""Where the bucket is on the machine."""
OVER = ("SUCCEEDED", "CANCELLED", "FAILED")
"""How the statuses of jobs that have ended begin."""

RUN = """set -o pipefail
export LAB_HOME={home} PYTHONUNBUFFERED=1
if ls {home}/runs/{week}/*/*/.hydra/config.yaml >/dev/null 2>&1
then ~/lab-env/bin/python -m {week}.train resume=latest
else ~/lab-env/bin/python -m {week}.train {words}
fi
"""
"""The job: what was typed; or, when a machine before this one had begun, its continuation."""


def start(sky: Any, errand: Errand, address: Sky, variables: dict[str, str]) -> int:
    """Hand the run to SkyPilot as a managed job, follow it and fetch it; returns its exit code.

    Raises UsageError for what a managed job cannot do, and when the price is not confirmed.
    """
    settings = errand.config.remote
    if address.cloud not in STORES:
        raise UsageError(
            "spot=true needs cloud=gcp or cloud=aws: a bucket there keeps the run's files; type "
            f"'device=sky://{address.gpu}:{address.count}?cloud=gcp&spot=true'"
        )
    if "-m" in errand.words:
        raise UsageError("a sweep cannot resume on another machine; leave out -m or spot=true")
    if settings.data is not None or settings.python is not None:
        raise UsageError("remote.data= and remote.python= are for machines that stay; leave out")
    usd = skypilot.offer(sky, address)
    skypilot.confirm(settings.yes)
    name = folders.new_name()
    job = Job(
        name, str(address), errand.program.week, [*errand.words, "device=auto"], "", "",
        time.time(), usd_per_hour=usd, managed_job=-1,
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        tree, home = Path(folder) / "tree", Path(folder) / "home"
        copy_tree(tree)
        if errand.folder is not None:
            inside = errand.folder.relative_to(paths.runs())
            shutil.copytree(errand.folder, home / "runs" / inside)
        job.save()
        task = sky.Task.from_yaml_config(
            config(job, tree, home if errand.folder else None, variables)
        )
        numbers, _ = skypilot.done(sky, sky.jobs.launch(task, name=bucket(job)))
    job.managed_job = numbers[0] if isinstance(numbers, list) else numbers
    job.save()
    say(f"{job.id} is SkyPilot's job {job.managed_job}; its files: {url(job)}")
    return 0 if settings.detach else watch(job)


def copy_tree(target: Path) -> None:
    """The working tree as git sees it, and what a record says of its commit."""
    for name in send.listed(paths.ROOT):
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(paths.ROOT / name, target / name)
    files.write_json(target / versions.ORIGIN, versions.git_state())


def config(job: Job, tree: Path, home: Path | None, variables: dict[str, str]) -> dict[str, Any]:
    """The task in SkyPilot's YAML format."""
    address = _address(job)
    store, _ = STORES[str(address.cloud)]
    mount: dict[str, Any] = {"name": bucket(job), "store": store, "mode": "MOUNT_CACHED"}
    if home is not None:
        mount["source"] = str(home)
    install = ["~/lab-env/bin/python -m pip install --quiet -c constraints.txt"]
    install += [shlex.quote(one) for one in check.requirements()]
    setup = [skypilot.SETUP, '"$LAB_PYTHON" -m venv ~/lab-env', " ".join(install)]
    task: dict[str, Any] = {
        "name": bucket(job),
        "workdir": str(tree),
        "resources": {
            "infra": "/".join(filter(None, (address.cloud, address.region))),
            "accelerators": f"{address.gpu}:{address.count}",
            "use_spot": True,
            "disk_size": skypilot.DISK_GB,
            "max_hourly_cost": round(skypilot.CEILING * (job.usd_per_hour or 0), 2),
        },
        "file_mounts": {HOME: mount},
        "setup": "\n".join(setup),
        "run": RUN.format(home=HOME, week=job.week, words=shlex.join(job.words)),
    }
    if variables:
        task["secrets"] = variables
    return task


def bucket(job: Job) -> str:
    """The name of a job's bucket, and of the job itself."""
    return f"lab-{job.id}".lower()


def url(job: Job) -> str:
    """The address of a job's bucket."""
    return f"{STORES[str(_address(job).cloud)][1]}://{bucket(job)}"


def _address(job: Job) -> Sky:
    address = parse(job.device)
    assert isinstance(address, Sky)
    return address


def state(job: Job) -> str:
    """SkyPilot's status of the job, in lower case; `not known` without it."""
    sky = skypilot.library()
    for one in skypilot.done(sky, sky.jobs.queue(refresh=True, skip_finished=False)):
        if one["job_id"] == job.managed_job:
            return str(getattr(one["status"], "value", one["status"])).lower()
    return "not known"


def watch(job: Job) -> int:
    """Follow the job's log to its end, and fetch it. Ctrl-C leaves it alone."""
    sky = skypilot.library()
    try:
        sky.jobs.tail_logs(job_id=job.managed_job, follow=True)
    except KeyboardInterrupt:
        say(f"\n{job.id} goes on. Follow it: lab remote attach {job.id}; stop: lab remote stop ...")
        return 130
    return fetch(job)


def logs(job: Job, follow: bool) -> int:
    """Print the job's log."""
    skypilot.library().jobs.tail_logs(job_id=job.managed_job, follow=follow)
    return 0


def stop(job: Job) -> int:
    """End the job, whose last checkpoint is in the bucket, and fetch it."""
    sky = skypilot.library()
    skypilot.done(sky, sky.jobs.cancel(job_ids=[job.managed_job]))
    job.ended = time.time()
    job.save()
    say(f"{job.id} is cancelled")
    return fetch(job)


def fetch(job: Job) -> int:
    """Copy the bucket here; returns 0 when the run has finished, 1 when it has not (yet).

    Raises RunFailed when the cloud's own command fails.
    """
    place = paths.home()
    scheme = url(job).partition(":")[0]
    with tempfile.TemporaryDirectory(dir=place) as folder:
        call([*COPY[scheme], url(job), folder])
        found = Path(folder)
        for name in ("runs", "results"):
            if (found / name).is_dir():
                shutil.copytree(found / name, place / name, dirs_exist_ok=True)
        for record in sorted(found.glob("artifacts/*/*/record.json")):
            inside = record.parent.relative_to(found)
            artifacts.put(record.parent, place / inside)
        finished = [folders.has_finished(p.parent) for p in found.glob("runs/*/*/*/result.json")]
    entry.when_finished()
    said = state(job)
    if said.upper().startswith(OVER):
        job.state, job.rc, job.ended = FETCHED, 0 if any(finished) else 1, job.ended or time.time()
        job.save()
    say(f"fetched {job.id} ({said}); its bucket stays until: lab remote cleanup {job.id}")
    return 0 if any(finished) else 1


def remove(job: Job) -> None:
    """Delete the job's bucket. Raises RunFailed."""
    call([*DELETE[url(job).partition(":")[0]], url(job)])


def call(command: list[str]) -> None:
    """One command of a cloud. Raises RunFailed, with what it said."""
    try:
        done = subprocess.run(command, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise RunFailed(
            f"{command[0]} is not installed here; it comes with the cloud's tools"
        ) from error
    if done.returncode:
        raise RunFailed(f"{shlex.join(command)} failed: {done.stderr.strip()[-500:]}")
