"""Runs on a rented machine: a real sshd here, and everything that may go wrong on the way."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
import threading
import time
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from labkit import cli
from labkit.remote import begin, check, follow, registry, send, transport
from labkit.remote.registry import Job
from tests.labkit import sshd

pytestmark = pytest.mark.skipif(bool(sshd.MISSING), reason=sshd.WHY)

QUICK = ["+size=smoke", "epochs=2"]
LONG = ["+size=smoke", "epochs=200", "checkpoint_seconds=0.1"]
"""Some seconds of training, with checkpoints on the way."""


@pytest.fixture(scope="module")
def machine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[sshd.Machine]:
    one = sshd.start(tmp_path_factory.mktemp("machine"))
    yield one
    one.stop()


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is fetched lies in tmp_path."""
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    monkeypatch.setenv("COLUMNS", "250")  # no line of a table is folded
    monkeypatch.setenv("LAB_OFFLINE", "1")
    monkeypatch.delenv("LAB_DATA", raising=False)
    monkeypatch.setattr("sys.argv", ["test"])


@pytest.fixture
def main() -> Callable[[list[str]], int]:
    """The command line of the lightest week, in this process."""
    from neural_networks.train import train

    return train.main


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, float]:
    """The metrics of LONG, made here without a stop."""
    home = tmp_path_factory.mktemp("alone")
    done = week(home, *LONG)
    assert done.wait(300) == 0
    return dict(record_in(home)["metrics"])


def week(home: Path, *words: str) -> subprocess.Popen[str]:
    """The week's command as a person types it, in a session of its own."""
    env = {**os.environ, "LAB_HOME": str(home), "LAB_OFFLINE": "1", "PYTHONPATH": os.getcwd()}
    return subprocess.Popen(
        [sys.executable, "-m", "neural_networks.train", *words], env=env, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
    )  # fmt: skip


def record_in(home: Path) -> dict[str, Any]:
    (file,) = home.glob("results/neural_networks/*.json")
    found: dict[str, Any] = json.loads(file.read_text())
    return found


def run_folder(home: Path) -> Path:
    (found,) = {path.parents[1] for path in home.glob("runs/*/*/*/.hydra/config.yaml")}
    return found


def until(seen: Callable[[], Any], seconds: float = 180) -> Any:
    """What `seen` returns, as soon as it is something."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if found := seen():
            return found
        time.sleep(0.05)
    raise AssertionError("waited in vain")


def the_job() -> Job:
    (job,) = until(registry.jobs)
    return job


def checkpoints(job: Job) -> list[Path]:
    return list(Path(job.folder).glob("tree/runs/*/*/*/checkpoint/*.safetensors"))


def training_process(job: Job) -> int:
    """The process that trains: the child of the run's own."""
    pid = int((Path(job.folder) / "pid").read_text())
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return int(children[0])


# --- a whole run ---


def test_a_run_there_gives_what_a_run_here_gives(
    machine: sshd.Machine, main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The record, the run folder and the tables come home; of a working tree with changes, the
    record says that it had them.
    """
    monkeypatch.setattr(send.versions, "git_state", lambda: {"commit": "abc", "dirty": True})
    assert main([*QUICK, *machine.words()]) == 0
    said = capsys.readouterr().err
    assert "neural_networks smoke: finished" in said
    assert "@progress" not in said
    record = record_in(tmp_path)
    assert record["git"] == {"commit": "abc", "dirty": True}
    assert record["config"]["device"] == "auto"
    assert not [name for name in record["config"] if name.startswith("remote")]
    folder = run_folder(tmp_path)
    assert json.loads((folder / "result.json").read_text()) == record
    assert (folder / "samples" / "loss.png").is_file()
    assert list((folder / "checkpoint").glob("*.safetensors"))
    assert (tmp_path / "PROGRESS.md").is_file()
    assert len(list(tmp_path.glob("results/neural_networks/*/*.json"))) == 1, "the curves"
    (job,) = registry.jobs()
    assert (job.state, job.rc) == ("fetched", 0)

    monkeypatch.setenv("LAB_HOME", str(tmp_path / "alone"))
    assert main(QUICK) == 0
    assert record_in(tmp_path / "alone")["metrics"] == record["metrics"]


def test_two_runs_at_once_and_all_commands(
    machine: sshd.Machine, main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """A second run has a tree of its own; of the environment only what is named gets there, and
    onto no disk.
    """
    secret = secrets.token_hex(16)
    monkeypatch.setenv("LAB_TEST_SECRET", secret)
    monkeypatch.setenv("LAB_TEST_OTHER", "st4ys-h3r3")
    words = [*machine.words(), "remote.detach=true", "remote.env=[LAB_TEST_SECRET]"]
    assert main(["+size=smoke", "epochs=100000", "seed=1", *words]) == 0
    assert main([*QUICK, "seed=2", *words]) == 0
    assert "another run is at work there" in capsys.readouterr().err
    long, quick = registry.jobs()
    until(lambda: checkpoints(long) or Path(long.folder, "phase").read_text() == "running")
    environ = Path(f"/proc/{training_process(long)}/environ").read_bytes()
    assert f"LAB_TEST_SECRET={secret}".encode() in environ
    assert b"LAB_TEST_OTHER" not in environ
    found = subprocess.run(["grep", "-rl", secret, machine.there, tmp_path / "remote"])
    assert found.returncode == 1, "the secret is in a file"
    readme = [Path(job.folder, "tree", "README.md") for job in (long, quick)]
    assert readme[0].stat().st_ino == readme[1].stat().st_ino, "sent again, or copied"

    assert cli.main(["remote", "attach", quick.id]) == 0
    assert record_in(tmp_path)["seed"] == 2
    capsys.readouterr()
    assert cli.main(["remote", "list"]) == 0
    listed = " ".join(capsys.readouterr().out.split())
    assert "running" in listed
    assert "fetched, exit 0" in listed
    assert cli.main(["remote", "cleanup", long.id]) == 1, "it is at work"
    assert cli.main(["remote", "stop", long.id]) == 0
    stopped = json.loads(
        next(
            path
            for path in tmp_path.glob("runs/*/*/*/result.json")
            if '"seed": 1' in path.read_text()
        ).read_text()
    )
    assert stopped["ended"] == "interrupted"
    capsys.readouterr()
    assert cli.main(["remote", "logs", long.id]) == 0
    assert "its state is saved" in capsys.readouterr().out
    assert cli.main(["remote", "cleanup"]) == 0
    assert registry.jobs() == []
    assert not Path(long.folder).exists()
    assert not Path(quick.folder).exists()


def test_the_environment_is_made_once(
    machine: sshd.Machine, main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """By venv and pip, from one wheel that lets it see the packages of this Python."""
    import numpy

    wheel = tmp_path / "tiny-1-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as file:
        file.writestr("tiny.pth", str(Path(numpy.__file__).parents[1]))
        file.writestr(
            "tiny-1.dist-info/METADATA", "Metadata-Version: 2.1\nName: tiny\nVersion: 1\n"
        )
        tag = "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr("tiny-1.dist-info/WHEEL", tag)
        file.writestr("tiny-1.dist-info/RECORD", "")
    monkeypatch.setattr(check, "requirements", lambda: [f"tiny @ file://{wheel}"])
    monkeypatch.setattr(check, "ENVIRONMENT_GB", 0.1)
    words = [word for word in machine.words() if not word.startswith("remote.python")]
    asked = Path(sys.executable).parent.name  # the interpreter that makes it is one on PATH
    assert asked
    assert main([*QUICK, *words]) == 0
    assert "making the environment" in capsys.readouterr().err
    assert main([*QUICK, *words]) == 0
    assert "making the environment" not in capsys.readouterr().err
    assert len(list(machine.there.glob("env/*/done"))) == 1


def test_data_sets_are_sent(
    machine: sshd.Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "data"))
    (tmp_path / "data" / "MNIST" / "raw").mkdir(parents=True)
    (tmp_path / "data" / "MNIST" / "raw" / "a b").write_text("x")
    job = Job("x", machine.device.partition("=")[2], "toy", [], "/f", "p", 0.0)
    job.ssh_config = str(machine.config)
    base = machine.there / "sent"
    send.data_sets(job, str(base), {"data": "mnist", "other": "multi30k"})
    assert (base / "data" / "MNIST" / "raw" / "a b").read_text() == "x"
    assert "multi30k is not on this machine" in capsys.readouterr().err


# --- the line is lost, the run is killed, the person leaves ---


def test_a_lost_line_is_picked_up_again(
    machine: sshd.Machine, main: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: Any, uninterrupted: dict[str, float],
) -> None:  # fmt: skip
    monkeypatch.setattr(follow, "FIRST_WAIT", 0.2)
    cut: list[int] = []
    with sshd.proxy(machine.port) as proxy:
        machine.know(proxy.port)

        def lose() -> None:
            job = the_job()
            until(lambda: checkpoints(job))
            proxy.closed = True
            cut.append(proxy.cut())
            time.sleep(0.5)
            proxy.closed = False

        thread = threading.Thread(target=lose)
        thread.start()
        assert main([*LONG, *machine.words(proxy.port)]) == 0
        thread.join()
    assert cut[0] > 0, "no line was open"
    said = capsys.readouterr().err
    assert "Trying again" in said
    log = (Path(the_job().folder) / "log").read_text().splitlines()
    for line in (line for line in log if line.strip() and not line.startswith("@progress")):
        assert said.count(line) == log.count(line), f"lost, or shown twice: {line}"
    assert record_in(tmp_path)["metrics"] == uninterrupted


def test_a_killed_run_is_fetched_and_resumes_there(
    machine: sshd.Machine, main: Any, tmp_path: Path, capsys: Any, uninterrupted: dict[str, float]
) -> None:
    assert main([*LONG, *machine.words(), "remote.detach=true"]) == 0
    job = the_job()
    until(lambda: checkpoints(job))
    os.kill(training_process(job), signal.SIGKILL)
    assert cli.main(["remote", "attach"]) == 1
    said = capsys.readouterr().err
    assert "killed there by signal 9" in said
    folder = run_folder(tmp_path)
    assert not (folder / "result.json").exists()
    assert main([f"resume={folder}", *machine.words()]) == 0
    assert "resumed after step" in capsys.readouterr().err
    assert run_folder(tmp_path) == folder, "it resumes in its own folder"
    assert record_in(tmp_path)["metrics"] == uninterrupted


def test_ctrl_c_saves_there_fetches_and_the_run_resumes_here(
    machine: sshd.Machine, main: Any, tmp_path: Path, uninterrupted: dict[str, float]
) -> None:
    command = week(tmp_path, *LONG, *machine.words())
    job = the_job()
    until(lambda: checkpoints(job))
    os.killpg(command.pid, signal.SIGINT)  # as the terminal does: ssh gets it, too
    said, _ = command.communicate(timeout=180)
    assert command.returncode == 130, said
    assert "stopping the run there" in said
    folder = run_folder(tmp_path)
    assert json.loads((folder / "result.json").read_text())["ended"] == "interrupted"
    assert main([f"resume={folder}"]) == 0
    assert record_in(tmp_path)["metrics"] == uninterrupted


def test_a_run_outlives_the_command_that_started_it(
    machine: sshd.Machine, tmp_path: Path, capsys: Any, uninterrupted: dict[str, float]
) -> None:
    command = week(tmp_path, *LONG, *machine.words())
    job = the_job()
    until(lambda: checkpoints(job))
    os.killpg(command.pid, signal.SIGKILL)
    command.wait()
    assert cli.main(["remote", "attach", job.id]) == 0
    assert record_in(tmp_path)["metrics"] == uninterrupted
    assert cli.main(["remote", "attach", job.id]) == 2, "it is done with"


def test_a_machine_that_restarted(machine: sshd.Machine, main: Any, capsys: Any) -> None:
    assert main(["+size=smoke", "epochs=100000", *machine.words(), "remote.detach=true"]) == 0
    job = the_job()
    until(lambda: Path(job.folder, "phase").read_text() == "running")
    pids = [int((Path(job.folder) / "pid").read_text()), training_process(job)]
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert cli.main(["remote", "attach"]) == 1
    assert "left no exit code there" in capsys.readouterr().err


# --- the machine is not fit ---


def asked(machine: sshd.Machine, **more: Any) -> transport.Connection:
    address = transport.SSH("127.0.0.1", None, more.pop("port", machine.port))
    return transport.Connection(address, str(more.pop("config", machine.config)), **more)


def test_wrong_key(machine: sshd.Machine, main: Any, tmp_path: Path, capsys: Any) -> None:
    sshd.new_key(tmp_path / "other")
    config = tmp_path / "config"
    config.write_text(
        machine.config.read_text().replace(f"{machine.folder}/key", f"{tmp_path}/other")
    )
    words = [*machine.words(), f"remote.ssh_config={config}"]
    assert main([*QUICK, *[word for word in words if not word.endswith("/ssh_config")]]) == 2
    said = capsys.readouterr().err
    assert "does not accept your key" in said
    assert "ssh-add" in said
    assert registry.jobs() == []


def test_host_keys(machine: sshd.Machine, tmp_path: Path) -> None:
    """Unknown: refused, or accepted when the person says so. Changed: refused all the same."""
    known = tmp_path / "known_hosts"
    config = tmp_path / "config"
    config.write_text(
        machine.config.read_text().replace(f"{machine.folder}/known_hosts", str(known))
    )
    with pytest.raises(transport.Refused, match="is not known here"):
        asked(machine, config=config).make(str(tmp_path / "x"))
    asked(machine, config=config, accept_new=True).make(str(tmp_path / "x"))
    assert (tmp_path / "x").is_dir()
    asked(machine, config=config).make(str(tmp_path / "y"))  # known from now on
    kind, text, *_ = sshd.new_key(tmp_path / "other").split()
    known.write_text(f"[127.0.0.1]:{machine.port} {kind} {text}\n")
    for accept in (False, True):
        with pytest.raises(transport.Refused, match=r"has changed.*keygen -R"):
            asked(machine, config=config, accept_new=accept).make(str(tmp_path / "z"))


def test_a_machine_that_is_not_there_is_told_within_ten_seconds(
    machine: sshd.Machine, main: Any, capsys: Any
) -> None:
    """Refused at once; and one that takes the line and says nothing."""
    words = machine.words(sshd.free_port())
    assert main([*QUICK, *words]) == 2
    assert "Connection refused" in capsys.readouterr().err
    with sshd.socket.create_server(("127.0.0.1", 0)) as silent:
        begun = time.monotonic()
        assert main([*QUICK, *machine.words(silent.getsockname()[1])]) == 2
        assert time.monotonic() - begun < 10
    assert "was not reached" in capsys.readouterr().err


def test_python_too_old(machine: sshd.Machine, main: Any, tmp_path: Path, capsys: Any) -> None:
    old = sshd.script(tmp_path / "python3", 'case "$2" in *exit*) exit 1;; esac; echo 3.8.10')
    assert main([*QUICK, *machine.words()[:-1], f"remote.python={old}"]) == 2
    said = capsys.readouterr().err
    assert "must be Python 3.11, 3.12 or 3.13; it is 3.8.10" in said
    assert main([*QUICK, *machine.words()[:-1], "remote.python=/no/such/python"]) == 2
    assert "it does not run there" in capsys.readouterr().err


def test_no_rsync_there_and_a_disk_that_fills_up_on_the_way(
    main: Any, tmp_path: Path, capsys: Any
) -> None:
    programs = tmp_path / "bin"
    sshd.script(programs / "sh", 'exec /bin/sh "$@"')
    for name in ("mkdir", "rm", "tail"):
        sshd.script(programs / name, f'exec /bin/{name} "$@" || exec /usr/bin/{name} "$@"')
    other = sshd.start(tmp_path / "machine", path=str(programs))
    try:
        assert main([*QUICK, *other.words()]) == 2
        assert "sudo apt-get install -y rsync" in capsys.readouterr().err
        full = "echo 'rsync: write failed: No space left on device (28)' >&2; exit 11"
        sshd.script(programs / "rsync", full)
        assert main([*QUICK, *other.words()]) == 2
        said = capsys.readouterr().err
        assert "a disk is full" in said
        assert "The run was not started" in said
        assert registry.jobs() == []
        assert list(other.there.glob("runs/*")) == [], "something stayed there"
    finally:
        other.stop()


def test_a_disk_that_is_full_while_it_trains(
    machine: sshd.Machine, main: Any, tmp_path: Path, capsys: Any
) -> None:
    """Files of at most 8 kB: the first checkpoint does not fit."""
    small = sshd.script(tmp_path / "python", f'ulimit -f 16; exec {sys.executable} "$@"')
    assert main([*QUICK, *machine.words()[:-1], f"remote.python={small}"]) == 1
    assert "free some space" in capsys.readouterr().err
    assert json.loads((run_folder(tmp_path) / "result.json").read_text())["ended"] == "failed"


@pytest.mark.skipif(shutil.which("nvidia-smi") is not None, reason="a GPU is here")
def test_full_size_without_a_gpu_is_refused(machine: sshd.Machine, capsys: Any) -> None:
    from diffusion.train import train

    assert train.main(machine.words()) == 2
    assert "there is no NVIDIA GPU on 127.0.0.1" in capsys.readouterr().err


def test_nothing_is_left_when_the_first_word_fails(
    machine: sshd.Machine, main: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C while the tree is sent: no run, no job, no files."""

    def press(*args: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(begin.send, "tree", press)
    before = len(list(machine.there.glob("runs/*")))
    assert main([*QUICK, *machine.words()]) == 130
    assert registry.jobs() == []
    assert len(list(machine.there.glob("runs/*"))) == before
