"""The parts of remote runs that need no other machine: what is judged, sent, shown and listed."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from labkit import cli, paths
from labkit.config.schema import RemoteSettings
from labkit.errors import RunFailed, UsageError
from labkit.machine.address import SSH
from labkit.records import versions
from labkit.remote import check, fetch, follow, probe, registry, send, start, transport
from labkit.remote.registry import Job
from labkit.run.errand import words_there

FIT: dict[str, Any] = {
    "python": "/usr/bin/python3.12",
    "version": "3.12.3",
    "system": "Linux",
    "base": "/home/learner/hands-on-ai-lab",
    "writable": True,
    "free_gb": 200.0,
    "rsync": True,
    "venv": True,
    "environments": [],
    "gpus": [{"name": "NVIDIA H100", "mb": "81559", "used_mb": "4", "driver": "580.10"}],
    "cores": 16,
    "before": None,
    "runs": [],
}
GPU = check.Needs(gpu=True, must_have_gpu=True, python=None)


# --- is the machine fit? ---


def test_a_fit_machine_is_described(capsys: pytest.CaptureFixture[str]) -> None:
    check.judge(FIT, "box", GPU)
    said = capsys.readouterr().err
    assert "Python 3.12.3, 200 GB free, 1 x NVIDIA H100 (80 GB), driver 580.10" in said
    assert "WARNING" not in said


@pytest.mark.parametrize(
    ("change", "needs", "words"),
    [
        ({"python": None, "old": " python3=3.8.10"}, GPU, "has only python3=3.8.10"),
        ({"python": None, "old": ""}, GPU, "has no Python"),
        ({"rsync": False}, GPU, "sudo apt-get install -y rsync"),
        ({"venv": False}, GPU, "python3.12-venv"),
        ({"free_gb": 14.9}, GPU, "needs 15 GB there"),
        ({"writable": False}, GPU, "remote.folder="),
        ({"base": "/home/learner/my lab"}, GPU, "no plain path"),
        ({"gpus": []}, GPU, "no NVIDIA GPU on box"),
        ({"free_gb": 0.9}, check.Needs(False, False, "/p"), "needs 1 GB there"),
    ],
)
def test_an_unfit_machine_is_refused(change: dict[str, Any], needs: Any, words: str) -> None:
    with pytest.raises(UsageError) as error:
        check.judge({**FIT, **change}, "box", needs)
    assert words in str(error.value)


def test_what_is_told_but_not_refused(capsys: pytest.CaptureFixture[str]) -> None:
    small = check.Needs(gpu=True, must_have_gpu=False, python=None)
    check.judge({**FIT, "gpus": []}, "box", small)
    check.judge({**FIT, "runs": ["a"]}, "box", small)
    busy = [{**FIT["gpus"][0], "used_mb": "40000"}]
    check.judge({**FIT, "gpus": busy}, "box", small)
    said = capsys.readouterr().err
    assert "no NVIDIA GPU on box: the run computes on its CPU" in said
    assert "another run is at work there (a)" in said
    assert "NVIDIA H100 there has 40 GB in use" in said


def test_an_environment_that_is_there_needs_little_disk_and_no_venv() -> None:
    name = check.environment_name("3.12.3")
    has = {**FIT, "environments": [name], "free_gb": 2.0, "venv": False}
    check.judge(has, "box", GPU)
    assert name.startswith("3.12-")
    with pytest.raises(UsageError):
        check.judge({**has, "version": "3.11.2"}, "box", GPU)  # another Python, another environment


def test_the_environment_is_named_by_its_requirements(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    project = tmp_path / "pyproject.toml"
    project.write_text('[project]\ndependencies = ["numpy>=2"]\n')
    (tmp_path / "constraints.txt").write_text("numpy==2.4\n")
    first = check.requirements_hash()
    assert check.requirements() == ["numpy>=2"]
    project.write_text('[project]\ndependencies = ["numpy>=2"]\ndescription = "x"\n')
    assert check.requirements_hash() == first
    (tmp_path / "constraints.txt").write_text("numpy==2.5\n")
    assert check.requirements_hash() != first


def test_the_probe_of_this_machine(tmp_path: Path) -> None:
    """Sent as text to another Python, so run as such here, isolated from all packages."""
    (tmp_path / "lab" / "env" / "3.12-abc").mkdir(parents=True)
    (tmp_path / "lab" / "env" / "3.12-abc" / "done").touch()
    (tmp_path / "lab" / "env" / "3.12-half").mkdir()
    code = Path(probe.__file__).read_text()
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, str(tmp_path / "lab")],
        capture_output=True, text=True, check=True,
    )  # fmt: skip
    about = json.loads(done.stdout.removeprefix(probe.MARK))
    assert about["base"] == str(tmp_path / "lab")
    assert about["environments"] == ["3.12-abc"]
    assert about["writable"] is True
    assert about["runs"] == []
    assert about["version"] == ".".join(map(str, sys.version_info[:3]))


def test_gpus_are_read_from_nvidia_smi(monkeypatch: pytest.MonkeyPatch) -> None:
    text = "NVIDIA A100-SXM4-80GB, 81920, 3, 550.54.15\nTesla T4, 15360, 15000, 550.54.15\n"
    answer = subprocess.CompletedProcess([], 0, text, "")
    monkeypatch.setattr(probe.subprocess, "run", lambda *args, **rest: answer)
    cards = probe.gpus()
    assert [card["name"] for card in cards] == ["NVIDIA A100-SXM4-80GB", "Tesla T4"]
    assert cards[1] == {
        "name": "Tesla T4", "mb": "15360", "used_mb": "15000", "driver": "550.54.15",
    }  # fmt: skip


def test_what_runs_there_needs_the_standard_library_only() -> None:
    there = Path(check.__file__).with_name("there.py")
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", f"import runpy; runpy.run_path({str(there)!r})"],
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


# --- ssh and rsync ---


def test_ssh_gets_a_list_and_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "secret")
    one = transport.Connection(SSH("host", "me", 2222), "/my config")
    words = one.command("python", "-c", "print('a b'); $(id)")
    assert words[:3] == ["ssh", "-F", "/my config"]
    assert words[-3:] == ["--", "host", "python -c 'print('\"'\"'a b'\"'\"'); $(id)'"]
    for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "ForwardAgent=no"):
        assert words[words.index(option) - 1] == "-o"
    assert words[words.index("-p") + 1] == "2222"
    assert words[words.index("-l") + 1] == "me"
    assert "WANDB_API_KEY" not in transport.environment()
    accepting = transport.Connection(SSH("host"), accept_new=True).command("true")
    assert "StrictHostKeyChecking=accept-new" in accepting
    seconds = next(word for word in words if word.startswith("ConnectTimeout="))
    assert int(seconds.partition("=")[2]) < 10


@pytest.mark.parametrize(
    ("said", "kind", "hint"),
    [
        ("@ WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED! @", transport.Refused, "keygen -R"),
        ("Host key verification failed.", transport.Refused, "remote.accept_new=true"),
        ("me@host: Permission denied (publickey).", transport.Refused, "ssh-add"),
        ("ssh: Could not resolve hostname nix", transport.NotReached, "no machine has that name"),
        ("ssh: connect to host: Connection refused", transport.NotReached, "Connection refused"),
        ("", transport.NotReached, "the line was lost"),
    ],
)
def test_what_ssh_says_is_explained(said: str, kind: type[Exception], hint: str) -> None:
    error = transport.Connection(SSH("host", None, 7)).fault(said)
    assert type(error) is kind
    assert hint in str(error)


def test_the_key_of_another_port_is_removed_by_its_own_name() -> None:
    said = "REMOTE HOST IDENTIFICATION HAS CHANGED"
    assert "ssh-keygen -R '[h]:7'" in str(transport.Connection(SSH("h", None, 7)).fault(said))
    assert str(transport.Connection(SSH("h")).fault(said)).endswith("ssh-keygen -R h")


# --- what is sent ---


def git(folder: Path, *words: str) -> None:
    subprocess.run(
        ["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=folder, check=True,
        capture_output=True,
    )  # fmt: skip


def test_the_working_tree_goes_as_git_sees_it(tmp_path: Path) -> None:
    git(tmp_path, "init", "-q")
    (tmp_path / ".gitignore").write_text("/data/\n*.secret\n")
    for name in ("kept.py", "changed.py", "deleted.py", "naïve name.py"):
        (tmp_path / name).write_text("a")
    git(tmp_path, "add", "-A")
    git(tmp_path, "commit", "-qm", "x")
    (tmp_path / "changed.py").write_text("b")
    (tmp_path / "deleted.py").unlink()
    (tmp_path / "my_week").mkdir()
    (tmp_path / "my_week" / "new.py").write_text("c")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "large").write_text("d")
    (tmp_path / "key.secret").write_text("e")
    assert send.listed(tmp_path) == [
        ".gitignore", "changed.py", "kept.py", "my_week/new.py", "naïve name.py",
    ]  # fmt: skip


def test_a_folder_without_git_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GIT_CEILING_DIRECTORIES", str(tmp_path.parent))
    with pytest.raises(UsageError, match="git clone"):
        send.listed(tmp_path)


def test_a_record_made_elsewhere_has_the_commit_of_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(paths, "ROOT", tmp_path)
    (tmp_path / versions.ORIGIN).write_text('{"commit": "abc", "dirty": true}')
    assert versions.git_state() == {"commit": "abc", "dirty": True}


def test_the_sets_that_settings_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values = {"data": "mnist", "fallback": "digits", "also": ["cifar10", "x"], "lr": 0.1, "n": None}
    assert send.named_sets(values) == ["cifar10", "mnist"]
    monkeypatch.setenv("LAB_DATA", str(tmp_path))
    (tmp_path / "cifar10_12k").mkdir()
    (tmp_path / "MNIST").mkdir()
    assert send.places("cifar10") == [tmp_path / "cifar10_12k"]
    assert send.places("mnist") == [tmp_path / "MNIST"]
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "MNIST"))
    monkeypatch.setattr(paths, "ROOT", tmp_path / "nowhere")
    assert send.places("mnist") == []


def test_the_command_there_does_not_say_where() -> None:
    words = ["+size=tiny", "device='ssh://h'", "lr=1", "remote.env=[A]", "+remote.yes=true", "x=2"]
    assert words_there(words) == ["+size=tiny", "lr=1", "x=2"]


def test_only_named_variables_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", "k")
    monkeypatch.delenv("NOT_SET", raising=False)
    assert start.named_variables(["WANDB_API_KEY"]) == {"WANDB_API_KEY": "k"}
    assert start.named_variables([]) == {}
    with pytest.raises(UsageError, match="export NOT_SET="):
        start.named_variables(["NOT_SET"])
    with pytest.raises(UsageError, match="names of variables"):
        start.named_variables(["A=b"])


@pytest.mark.parametrize(
    ("settings", "hint"),
    [
        (RemoteSettings(data="yes"), "must be send"),
        (RemoteSettings(ssh_config="/no/such"), "is not a file"),
    ],
)
def test_settings_that_cannot_be_meant(settings: RemoteSettings, hint: str) -> None:
    with pytest.raises(UsageError, match=hint):
        start.check_words(settings)


# --- what comes back ---


@pytest.mark.parametrize(
    "name", ["../runs/x", "/etc/passwd", "runs/../../x", "results", "artifacts/a", "runs\\x"]
)
def test_another_machine_cannot_write_elsewhere(name: str) -> None:
    with pytest.raises(RunFailed, match="nothing was fetched"):
        fetch.checked(name, "runs")


def test_the_log_is_shown_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    """However it is cut on its way: lines whole, no line of progress among them."""
    said = {"title": "toy", "total": 9, "done": 3, "closed": False, "metrics": {"loss": 1.5}}
    lines = ["first", f"@progress {json.dumps(said)}", "schön", "@progress not json", "last"]
    raw = "\n".join(lines).encode()
    for size in (1, 7, len(raw)):
        reader = follow.Reader()
        for begin in range(0, len(raw), size):
            reader.feed(raw[begin : begin + size])
        reader.close()
        assert capsys.readouterr().err == "first\nschön\nlast\n"


def test_progress_moves_a_bar_like_that_of_a_local_run(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Bar:
        def __init__(self, title: str, total: int, start: int) -> None:
            self.title = title
            seen.append(("new", title, total, start))

        def show(self, metrics: dict[str, float]) -> None:
            seen.append(metrics)

        def update(self, done: int) -> None:
            seen.append(done)

        def close(self) -> None:
            seen.append("closed")

    monkeypatch.setattr(follow, "Progress", Bar)
    reader = follow.Reader()
    for title, done, closed in (("a", 0, False), ("a", 5, True), ("b", 1, False)):
        said = {"title": title, "total": 9, "done": done, "closed": closed, "metrics": {"l": 1.0}}
        reader.feed(f"@progress {json.dumps(said)}\n".encode())
    reader.close()
    assert seen == [
        ("new", "a", 9, 0), {"l": 1.0}, 0, {"l": 1.0}, 5, "closed",
        ("new", "b", 9, 1), {"l": 1.0}, 1, "closed",
    ]  # fmt: skip


def test_logs_leave_progress_out() -> None:
    out = io.StringIO()
    reader = follow.Reader(out, bars=False)
    reader.feed(b'a\n@progress {"title": "t"}\nb')
    reader.close()
    assert out.getvalue() == "a\nb\n"


def test_waits_grow_up_to_a_minute_and_end(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    slept: list[float] = []
    clock = [0.0]

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        clock[0] += seconds

    monkeypatch.setattr(follow.time, "sleep", sleep)
    monkeypatch.setattr(follow.time, "monotonic", lambda: clock[0])
    waits = follow.Waits()
    for _ in range(8):
        waits.pause("lost")
    assert slept == [1, 2, 4, 8, 16, 32, 60, 60]
    assert capsys.readouterr().err.count("lost") == 1, "said once"
    waits.reset()
    waits.pause("lost again")
    assert slept[-1] == 1
    clock[0] += follow.PATIENCE
    with pytest.raises(follow.Detached):
        waits.pause("lost")


# --- the list ---


def a_job(name: str, started: float = 0.0, **more: Any) -> Job:
    return Job(name, "ssh://h", "toy", ["seed=1"], f"/l/runs/{name}", "python3", started, **more)


def test_jobs_are_found_by_the_beginning_of_their_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    with pytest.raises(UsageError, match="nothing was started"):
        registry.find(None)
    for number, name in enumerate(("20-bb", "20-aa", "21-aa")):
        a_job(name, number).save()
    (tmp_path / "remote" / "broken.json").write_text("{")
    assert [job.id for job in registry.jobs()] == ["20-bb", "20-aa", "21-aa"]
    assert registry.find(None).id == "21-aa"
    assert registry.find("20-a").id == "20-aa"
    with pytest.raises(UsageError, match="several runs begin with 20"):
        registry.find("20")
    with pytest.raises(UsageError, match="no run begins with x"):
        registry.find("x")


def test_cost_so_far(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(registry.time, "time", lambda: 7200.0)
    assert a_job("a").cost is None
    assert a_job("a", usd_per_hour=3.0).cost == pytest.approx(6.0)
    assert a_job("a", usd_per_hour=3.0, ended=1800.0).cost == pytest.approx(1.5)


def test_commands_without_a_job(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("LAB_HOME", str(tmp_path))
    assert cli.main(["remote", "list"]) == 0
    for verb in ("attach", "logs", "stop", "fetch"):
        assert cli.main(["remote", verb]) == 2
    assert cli.main(["remote", "cleanup"]) == 0
    assert "nothing was started on a rented machine" in capsys.readouterr().err


# --- bad words on the command line ---


@pytest.mark.parametrize(
    ("words", "hint"),
    [
        (["device=ssh://host;id"], "is not an address"),
        (["device=ftp://host"], "unknown scheme"),
        (["device=ssh://h", "remote.env=[LAB_NOT_SET_ANYWHERE]"], "not set here"),
        (["device=ssh://h", "remote.data=some"], "must be send"),
        (["device=ssh://h", "remote.folder=a b"], "plain path"),
        (["device=ssh://h", "remote.fodler=x"], "did you mean remote.folder?"),
        (["-m", "device=ssh://a,ssh://b"], "is not an address"),
    ],
)
def test_bad_words(toy: Any, words: list[str], hint: str, capsys: Any) -> None:
    assert toy.main(["+size=smoke", *words]) == 2
    assert hint in capsys.readouterr().err


def test_the_page_has_the_prices_of_the_table() -> None:
    from labkit.plan.gpus import prices

    page = (paths.ROOT / "docs" / "renting.md").read_text(encoding="utf-8")
    table = prices()
    for gpu in table.gpus:
        assert f"| {gpu.name} | {gpu.memory_gb:g} GB | {gpu.usd_per_hour:.2f} |" in page
    year, month = table.date.split("-")
    names = "January February March April May June July August September October November December"
    assert f"List prices of {names.split()[int(month) - 1]} {year}" in page
