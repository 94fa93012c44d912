"""ssh and rsync, called with lists of arguments: no shell reads anything here, and no password is
asked for.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from labkit.errors import RunFailed, UsageError
from labkit.machine.address import SSH
from labkit.remote.probe import MARK

CONNECT_SECONDS = 8
"""How long a machine may take to answer; together with the start of ssh that is below ten."""
SILENT_SECONDS = (10, 3)
"""Seconds between two questions whether the other side is there, and how many may be missed."""
KEPT = (
    "HOME", "KRB5CCNAME", "LANG", "LC_ALL", "LOGNAME", "PATH", "SSH_AUTH_SOCK", "SYSTEMROOT",
    "TMPDIR", "USER", "USERPROFILE",
)  # fmt: skip
"""Variables that ssh itself gets. No other can leave, whatever SendEnv says."""
SAFE_PATH = re.compile(r"[A-Za-z0-9_./+@%:,-]+")
"""Paths there; older versions of rsync hand them to a shell."""


class NotReached(RunFailed):
    """The connection failed or was lost; it may work again later."""


class Refused(UsageError):
    """The machine answered and will not let us in, however often we try."""


def environment() -> dict[str, str]:
    """The environment of ssh and rsync."""
    return {name: os.environ[name] for name in KEPT if name in os.environ}


def need_tools() -> None:
    """Raises UsageError when ssh or rsync is missing on this machine."""
    for tool, package in (("ssh", "openssh-client"), ("rsync", "rsync")):
        if shutil.which(tool) is None:
            raise UsageError(
                f"device=ssh:// needs {tool}, which is not installed here; type: "
                f"sudo apt-get install {package}   (macOS: brew install {package.split('-')[0]})"
            )


@dataclass(frozen=True)
class Connection:
    """How a machine is reached. Nothing is opened before it is needed, or kept open after."""

    address: SSH
    config: str | None = None
    """An ssh configuration file instead of the person's own."""
    accept_new: bool = False
    """Whether the key of a host that was never seen is accepted."""
    managed: bool = False
    """Whether the host keys are someone else's business: SkyPilot's, for its own machines."""

    def options(self) -> list[str]:
        """ssh and its options, without host and command."""
        options = {
            "BatchMode": "yes",  # never ask for a password
            "ConnectTimeout": CONNECT_SECONDS,
            "ConnectionAttempts": 1,
            "ServerAliveInterval": SILENT_SECONDS[0],
            "ServerAliveCountMax": SILENT_SECONDS[1],
            "ForwardAgent": "no",
            "ForwardX11": "no",
            "ClearAllForwardings": "yes",
        }
        if not self.managed:
            options["StrictHostKeyChecking"] = "accept-new" if self.accept_new else "yes"
        words = ["ssh", *(["-F", self.config] if self.config else []), "-T"]
        for name, value in options.items():
            words += ["-o", f"{name}={value}"]
        if self.address.port is not None:
            words += ["-p", str(self.address.port)]
        if self.address.user is not None:
            words += ["-l", self.address.user]
        return words

    def command(self, *words: str) -> list[str]:
        """The list of arguments that runs these words there. The login shell there reads them, so
        each is quoted.
        """
        return [*self.options(), "--", self.address.host, shlex.join(words)]

    def popen(self, *words: str) -> subprocess.Popen[bytes]:
        """Begin a command there; Ctrl-C in the terminal does not reach its ssh."""
        return subprocess.Popen(
            self.command(*words), env=environment(), stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True,
        )  # fmt: skip

    def ask(self, *words: str, text: str = "", seconds: float = 60) -> Any:
        """The JSON that a command there answers, after `text` on its stdin.

        Raises NotReached, Refused, and RunFailed when the command fails there.
        """
        try:
            done = subprocess.run(
                self.command(*words), env=environment(), input=text.encode(), capture_output=True,
                timeout=seconds, start_new_session=True,
            )  # fmt: skip
        except subprocess.TimeoutExpired as error:
            raise NotReached(f"{self.address} did not answer within {seconds:g} s") from error
        said = done.stderr.decode(errors="replace").strip()
        if done.returncode == 255:
            raise self.fault(said)
        for line in done.stdout.decode(errors="replace").splitlines():
            if line.startswith(MARK):
                return json.loads(line.removeprefix(MARK))
        raise RunFailed(f"{self.address} gave no answer (exit {done.returncode}): {said[-1000:]}")

    def read(self, file: str, offset: int = 0) -> bytes:
        """A file there from a byte on. Raises as `ask` does."""
        process = self.popen("tail", "-c", f"+{offset + 1}", file)
        out, said = process.communicate(timeout=120)
        if process.returncode == 255:
            raise self.fault(said.decode(errors="replace").strip())
        if process.returncode:
            raise RunFailed(f"{self.address}: {said.decode(errors='replace').strip()}")
        return out

    def make(self, folder: str) -> None:
        """Make a folder there, with those above it. Raises as `ask` does."""
        self.ask("sh", "-s", text=f"mkdir -p {shlex.quote(folder)} && echo '{MARK}true'\n")

    def remove(self, folder: str) -> None:
        """Delete a folder there. Raises as `ask` does."""
        self.ask("sh", "-s", text=f"rm -rf {shlex.quote(folder)} && echo '{MARK}true'\n")

    def fault(self, said: str) -> Exception:
        """What ssh's own message means, with what to type."""
        host, here = self.address.host, self.by_hand()
        if "REMOTE HOST IDENTIFICATION HAS CHANGED" in said:
            port = self.address.port or 22
            name = host if port == 22 else f"[{host}]:{port}"
            return Refused(
                f"the host key of {self.address} has changed: another machine has that address "
                "now, or someone is between you and it. If you rented a new machine, type: "
                f"ssh-keygen -R {shlex.quote(name)}"
            )
        if "Host key verification failed" in said or "host key is known" in said:
            return Refused(
                f"the host key of {self.address} is not known here. Type once, and compare what it "
                f"shows with your provider's page: {here}\n"
                "Or accept the key of a new machine unseen: remote.accept_new=true"
            )
        if "Permission denied" in said:
            return Refused(
                f"{self.address} does not accept your key ({_last(said)}). No password is asked "
                f"for or stored here. See what it wants: {here}\n"
                "A key with a passphrase must be in the agent: ssh-add"
            )
        if "Could not resolve hostname" in said:
            return NotReached(f"{self.address}: no machine has that name ({_last(said)})")
        return NotReached(f"{self.address} was not reached: {_last(said) or 'the line was lost'}")

    def by_hand(self) -> str:
        """The ssh command that a person types to see for themselves."""
        config = f"-F {shlex.quote(self.config)} " if self.config else ""
        port = f"-p {self.address.port} " if self.address.port else ""
        user = f"{self.address.user}@" if self.address.user else ""
        return f"ssh {config}{port}{user}{self.address.host}"

    # --- rsync ---

    def send(
        self, source: Path, target: str, *options: str, files: Sequence[str] | None = None
    ) -> None:
        """Copy what is in `source` into the folder `target` there, or only `files` of it."""
        self._rsync([*options, *_listed(files), f"{source}/", f"{self._host()}:{target}/"], files)

    def fetch(
        self, source: str, target: Path, *options: str, files: Sequence[str] | None = None
    ) -> None:
        """Copy what is in the folder `source` there into `target`, or only `files` of it."""
        target.mkdir(parents=True, exist_ok=True)
        self._rsync([*options, *_listed(files), f"{self._host()}:{source}/", f"{target}/"], files)

    def _host(self) -> str:
        return f"[{self.address.host}]" if ":" in self.address.host else self.address.host

    def _rsync(self, words: list[str], files: Sequence[str] | None) -> None:
        """Raises NotReached when the line is lost, RunFailed for what rsync itself cannot do."""
        shell = " ".join(f"'{word}'" if " " in word else word for word in self.options())
        command = ["rsync", "-rlptz", "--partial", "--timeout=60", "-e", shell, *words]
        listed = b"" if files is None else os.fsencode("\0".join(files))
        try:
            done = subprocess.run(
                command, env=environment(), input=listed, capture_output=True,
                start_new_session=True,
            )  # fmt: skip
        except FileNotFoundError as error:
            need_tools()
            raise RunFailed(str(error)) from error
        said = done.stderr.decode(errors="replace").strip()
        if done.returncode in (0, 24):  # 24: a file vanished meanwhile, such as an old checkpoint
            return
        if "No space left on device" in said or "Disk quota exceeded" in said:
            raise RunFailed(f"a disk is full, here or on {self.address}: {_first(said)}")
        if "command not found" in said or done.returncode == 127:
            raise UsageError(
                f"rsync is not installed on {self.address}; type: {self.by_hand()} "
                "sudo apt-get install -y rsync"
            )
        if done.returncode == 255 or "unexplained error" in said:
            raise self.fault(said)
        if done.returncode in (10, 12, 30, 35):  # of the connection
            raise NotReached(f"the line to {self.address} was lost: {_first(said)}")
        raise RunFailed(f"rsync failed (exit {done.returncode}): {said[-1000:]}")


def _listed(files: Sequence[str] | None) -> list[str]:
    return [] if files is None else ["--from0", "--files-from=-"]


def _first(said: str) -> str:
    return said.splitlines()[0] if said else "no message"


def _last(said: str) -> str:
    return said.splitlines()[-1] if said else ""
