"""Machines of SkyPilot: rented only after a yes, always with an autostop, always given back."""

from __future__ import annotations

import inspect
import json
import secrets
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit import cli
from labkit.errors import UsageError
from labkit.machine.address import Sky
from labkit.remote import registry, skypilot, spot
from labkit.remote.registry import Job
from tests.labkit import sshd
from tests.labkit.fake_sky import FakeSky

PRICED = ["enabled_clouds", "list_accelerators"]
CALLED = (*PRICED, "launch", "autostop", "exec", "status", "start", "down", "stream_and_get")
QUICK = ["+size=smoke", "epochs=2", "device=sky://H100:1"]


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "250")  # no line of a table is folded
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.delenv("LAB_DATA", raising=False)
    monkeypatch.setattr("sys.argv", ["test"])


@pytest.fixture
def sky(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeSky]:
    fake = FakeSky()
    monkeypatch.setitem(sys.modules, "sky", fake)
    monkeypatch.setattr(skypilot, "alias", lambda cluster: cluster)
    monkeypatch.setattr("labkit.remote.transport.need_tools", lambda: None)
    yield fake
    for process in fake.processes:
        process.wait(180)


@pytest.fixture
def main() -> Callable[[list[str]], int]:
    from neural_networks.train import train

    return train.main


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Machine]:
    """Reached under any name that begins with lab-, as SkyPilot's configuration would have it."""
    if sshd.MISSING:
        pytest.skip(sshd.WHY)
    one = sshd.start(tmp_path_factory.mktemp("machine"))
    text = one.config.read_text()
    alias = f"Host lab-*\n  HostName 127.0.0.1\n  Port {one.port}\n  StrictHostKeyChecking no\n"
    one.config.write_text(alias + text)
    yield one
    one.stop()


def there(machine: sshd.Machine) -> list[str]:
    return [*machine.words()[1:], "remote.yes=true"]


def test_a_rental_from_the_price_to_the_end(
    sky: FakeSky, main: Any, machine: sshd.Machine, tmp_path: Path, capsys: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    secret = secrets.token_hex(16)
    monkeypatch.setenv("LAB_TEST_SECRET", secret)
    assert main([*QUICK, *there(machine), "remote.env=[LAB_TEST_SECRET]"]) == 0
    assert sky.names() == [*PRICED, "launch", "autostop", "exec", "down"]
    assert sky.calls[1][1] == {"clouds": ["gcp", "aws"], "count": 1}
    _, launched = sky.calls[2]
    assert launched["asked"]["accelerators"] == {"H100": 1}
    assert launched["asked"]["use_spot"] is False
    assert launched["asked"]["max_hourly_cost"] == 3.75
    assert (launched["idle"], launched["down"]) == (10, True), "an autostop, always"
    stop = sky.calls[3][1]
    assert (stop["idle"], stop["down"]) == (10, False), "its disk stays, to be fetched later"
    assert sky.machines == {}
    said = capsys.readouterr().err
    assert said.index("from $2.50 an hour (GCP") < said.index("asking for the machine")
    assert "a3-highgpu-1g in us-west1: $2.80 an hour" in said
    assert "is torn down; it cost about $0.0" in said
    assert "still on" not in said
    (record,) = tmp_path.glob("results/neural_networks/*.json")
    assert json.loads(record.read_text())["ended"] == "finished"
    (job,) = registry.jobs()
    assert (job.state, job.rc, job.cluster, job.usd_per_hour) == ("fetched", 0, None, 2.8)
    assert secret not in (tmp_path / "remote" / f"{job.id}.json").read_text()
    assert subprocess.run(["grep", "-rq", secret, machine.there]).returncode == 1
    with pytest.raises(UsageError):
        registry.find("nothing")


def test_a_detached_run_is_fetched_from_a_machine_that_stopped_by_itself(
    sky: FakeSky, main: Any, machine: sshd.Machine, tmp_path: Path, capsys: Any
) -> None:
    assert main([*QUICK, *there(machine), "remote.detach=true"]) == 0
    (job,) = registry.jobs()
    assert job.cluster is not None
    assert cli.main(["remote", "list"]) == 0
    shown = capsys.readouterr()
    assert "$0.0" in shown.out
    assert "1 machine(s) of SkyPilot cost money now" in shown.err
    assert cli.main(["remote", "cleanup", job.id]) == 1, "it may still be at work"
    sky.processes[0].wait(180)
    sky.machines[job.cluster] = "STOPPED"
    assert cli.main(["remote", "fetch"]) == 0
    assert sky.names()[-3:] == ["status", "start", "down"]
    assert list(tmp_path.glob("results/neural_networks/*.json"))
    assert registry.jobs()[0].cluster is None


@pytest.mark.parametrize("answer", [None, "", "no"])
def test_nothing_is_rented_without_a_yes(
    sky: FakeSky, main: Any, answer: str | None, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    class Stdin:
        def isatty(self) -> bool:
            return answer is not None

        def readline(self) -> str:
            return f"{answer}\n"

    monkeypatch.setattr(sys, "stdin", Stdin())
    assert main(QUICK) == 2
    said = capsys.readouterr().err
    assert "$2.50 an hour" in said
    assert "nothing was rented" in said
    assert sky.names() == PRICED
    assert registry.jobs() == []


def test_without_skypilot(main: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setitem(sys.modules, "sky", None)
    monkeypatch.setattr("labkit.remote.transport.need_tools", lambda: None)
    assert main(QUICK) == 2
    said = capsys.readouterr().err
    assert "pip install 'skypilot[gcp]>=0.14'" in said
    assert "sky check" in said


@pytest.mark.parametrize(
    ("enabled", "device", "hint"),
    [
        ([], "sky://H100:1", "SkyPilot may use no cloud; to see why, and what to type: sky check"),
        (["GCP"], "sky://H100:1?cloud=aws", "may use gcp but not aws"),
        (["GCP"], "sky://RTX4090:2", "none of gcp offers 2 x RTX4090; what they have: sky gpus"),
    ],
)
def test_no_machine_to_be_had(
    sky: FakeSky, main: Any, enabled: list[str], device: str, hint: str, capsys: Any
) -> None:
    sky.enabled = enabled
    assert main(["+size=smoke", f"device={device}", "remote.yes=true"]) == 2
    assert hint in capsys.readouterr().err
    assert "launch" not in sky.names()


def test_what_skypilot_says_is_shown(sky: FakeSky, main: Any, capsys: Any) -> None:
    sky.fails["enabled_clouds"] = ConnectionError("the API server does not answer")
    assert main(QUICK) == 2
    assert "SkyPilot: the API server does not answer" in capsys.readouterr().err


@pytest.mark.parametrize("error", [KeyboardInterrupt(), RuntimeError("out of H100s")])
def test_a_machine_that_was_asked_for_is_given_back(
    sky: FakeSky, main: Any, error: BaseException
) -> None:
    sky.fails["launch"] = error
    code = main([*QUICK, "remote.yes=true"])
    assert code == (130 if isinstance(error, KeyboardInterrupt) else 2)
    assert sky.names() == [*PRICED, "launch", "down"]
    assert registry.jobs() == []


def test_a_machine_that_cannot_be_reached_is_given_back(
    sky: FakeSky, main: Any, tmp_path: Path
) -> None:
    config = tmp_path / "config"
    config.write_text(f"Host *\n  HostName 127.0.0.1\n  Port {sshd.free_port()}\n")
    assert main([*QUICK, "remote.yes=true", f"remote.ssh_config={config}"]) == 2
    assert sky.names()[-1] == "down"
    assert sky.machines == {}


def test_a_machine_that_cannot_be_given_back_stays_on_the_list(
    sky: FakeSky, main: Any, capsys: Any
) -> None:
    sky.fails |= {"launch": RuntimeError("x"), "down": RuntimeError("no line")}
    assert main([*QUICK, "remote.yes=true"]) == 2
    said = capsys.readouterr().err
    assert "IT STILL COSTS MONEY" in said
    (job,) = registry.jobs()
    assert f"sky down {job.cluster}" in said
    del sky.fails["down"]
    assert cli.main(["remote", "stop"]) == 1  # there is no run to stop
    assert sky.machines == {}
    assert registry.jobs()[0].cluster is None


def test_a_cloud_that_cannot_stop_machines_is_named(sky: FakeSky, main: Any, capsys: Any) -> None:
    sky.cloud.can_stop = False
    sky.fails["autostop"] = AssertionError("it cannot")
    job = Job("j", "sky://H100:1", "toy", [], "", "", 0.0, cluster="lab-j")
    skypilot.rent(sky, job, skypilot.machine(sky, Sky("H100"), 3.0), 30)
    assert "30 minutes after the run's end it is torn down" in capsys.readouterr().err
    assert (sky.calls[0][1]["down"], sky.calls[0][1]["idle"]) == (True, 30)


# --- managed jobs ---

SPOT = Sky("T4", 1, "gcp", None, True)


def spot_job(**more: Any) -> Job:
    return Job(
        "20260301-abc",
        str(SPOT),
        "neural_networks",
        ["+size=smoke", "x='a b'"],
        "",
        "",
        0.0,
        **more,
    )


def test_a_spot_run_is_a_managed_job_with_a_bucket(
    sky: FakeSky, main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    words = ["+size=smoke", "device=sky://T4:1?cloud=gcp&spot=true", "remote.yes=true"]
    trees: list[bool] = []
    launch = sky.jobs.launch

    def look(task: Any, name: str | None = None) -> Any:
        tree = Path(task.config["workdir"])
        trees.append((tree / "labkit" / "cli.py").is_file() and not (tree / ".git").exists())
        return launch(task, name=name)

    sky.jobs.launch = look
    assert main([*words, "remote.detach=true"]) == 0
    assert trees == [True]
    assert sky.names() == [*PRICED, "jobs.launch"]
    config = sky.calls[-1][1]["config"]
    assert config["resources"]["max_hourly_cost"] == 1.35, "the price of spot machines"
    assert config["resources"]["use_spot"] is True
    assert config["resources"]["infra"] == "gcp"
    mount = config["file_mounts"]["/lab-home"]
    assert mount == {"name": sky.calls[-1][1]["name"], "store": "gcs", "mode": "MOUNT_CACHED"}
    (job,) = registry.jobs()
    assert job.managed_job == 7
    assert cli.main(["remote", "list"]) == 0
    assert "running" in capsys.readouterr().out

    # The cloud's own command, which copies the bucket here.
    made = tmp_path / "bucket" / "runs" / "neural_networks" / "smoke" / "r1"
    made.mkdir(parents=True)
    (made / "result.json").write_text("{}")
    done = 'cp -r "$BUCKET"/. "$5"'
    sshd.script(tmp_path / "bin" / "gcloud", f'echo "$@" >> "$BUCKET.log"; [ "$2" = rm ] || {done}')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:/usr/bin:/bin")
    monkeypatch.setenv("BUCKET", str(tmp_path / "bucket"))
    assert cli.main(["remote", "stop"]) == 1  # nothing in the bucket has finished
    assert "jobs.cancel" in sky.names()
    assert (tmp_path / "runs" / "neural_networks" / "smoke" / "r1" / "result.json").is_file()
    assert cli.main(["remote", "cleanup"]) == 0
    log = (tmp_path / "bucket.log").read_text().splitlines()
    assert log[0].startswith(f"storage rsync -r gs://{spot.bucket(job)} ")
    assert log[1] == f"storage rm -r gs://{spot.bucket(job)}"
    assert registry.jobs() == []


def test_the_job_resumes_when_a_machine_before_it_had_begun(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The script itself, run by a shell: the first time as typed, then with resume=latest."""
    bucket = tmp_path / "bucket"
    monkeypatch.setattr(spot, "HOME", str(bucket))
    run = spot.config(spot_job(), tmp_path, None, {})["run"]
    run_folder = f"{bucket}/runs/neural_networks/smoke/r1/.hydra"
    made = f"mkdir -p {run_folder}; touch {run_folder}/config.yaml"
    seen = 'printf "%s\\n" "$LAB_HOME" "$@" >> "$HOME/seen"'
    sshd.script(tmp_path / "lab-env" / "bin" / "python", f"{seen}; {made}")
    for _ in range(2):
        subprocess.run(
            ["bash", "-c", run], check=True, env={"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        )
    first = [str(bucket), "-m", "neural_networks.train", "+size=smoke", "x='a b'"]
    second = [str(bucket), "-m", "neural_networks.train", "resume=latest"]
    assert (tmp_path / "seen").read_text().splitlines() == [*first, *second]


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["device=sky://T4:1?spot=true"], "needs cloud=gcp or cloud=aws"),
        (["-m", "seed=1,2", "device=sky://T4:1?cloud=gcp&spot=true"], "leave out -m"),
        (["device=sky://T4:1?cloud=gcp&spot=true", "remote.data=send"], "leave out"),
    ],
)
def test_what_a_managed_job_cannot_do(
    sky: FakeSky, main: Any, words: list[str], hint: str, capsys: Any
) -> None:
    assert main(["+size=smoke", *words]) == 2
    assert hint in capsys.readouterr().err
    assert "jobs.launch" not in sky.names()


def test_secrets_are_secrets(tmp_path: Path) -> None:
    config = spot.config(
        spot_job(usd_per_hour=0.5), tmp_path, tmp_path / "home", {"WANDB_API_KEY": "sk-1"}
    )
    assert config["secrets"] == {"WANDB_API_KEY": "sk-1"}
    assert "sk-1" not in config["run"] + config["setup"]
    assert config["file_mounts"]["/lab-home"]["source"] == str(tmp_path / "home")


# --- SkyPilot itself ---


def test_the_library_accepts_the_tasks(tmp_path: Path) -> None:
    sky = pytest.importorskip("sky")
    task = skypilot.machine(sky, Sky("A100-80GB", 8, "gcp", "us-central1"), 20.0)
    (asked,) = task.resources
    assert asked.accelerators == {"A100-80GB": 8}
    config = spot.config(spot_job(usd_per_hour=0.5), tmp_path, None, {"WANDB_API_KEY": "k"})
    task = sky.Task.from_yaml_config(config)
    (asked,) = task.resources
    assert asked.use_spot
    assert "resume=latest" in task.run


def test_the_fake_has_the_arguments_of_the_library() -> None:
    """Every argument that the fake takes is one that SkyPilot takes."""
    sky, fake = pytest.importorskip("sky"), FakeSky()
    for name in CALLED:
        place = sky.client.sdk if name == "enabled_clouds" else sky
        ours = inspect.signature(getattr(fake, name)).parameters
        theirs = inspect.signature(inspect.unwrap(getattr(place, name))).parameters
        assert set(ours) <= set(theirs) | {"request"}, name
    for name in ("launch", "queue", "cancel", "tail_logs"):
        ours = inspect.signature(getattr(fake.jobs, name)).parameters
        theirs = inspect.signature(inspect.unwrap(getattr(sky.jobs, name))).parameters
        assert set(ours) <= set(theirs), name
    theirs = inspect.signature(sky.Task.__init__).parameters
    assert {"name", "setup", "run", "secrets"} <= set(theirs)
