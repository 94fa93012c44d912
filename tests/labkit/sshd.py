"""A real sshd on 127.0.0.1 with its own keys, as the rented machine of the tests; and a proxy in
front of it that loses the line.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SSHD = shutil.which("sshd", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")
MISSING = [
    name
    for name, found in (
        ("sshd", SSHD),
        ("ssh", shutil.which("ssh")),
        ("ssh-keygen", shutil.which("ssh-keygen")),
        ("rsync", shutil.which("rsync")),
    )
    if found is None
]
WHY = f"not installed here: {', '.join(MISSING)}; type: apt-get install openssh-server rsync"


@dataclass
class Machine:
    """An sshd at work, and what a person needs to reach it."""

    folder: Path
    port: int
    there: Path
    """remote.folder: what the lab keeps there."""
    process: subprocess.Popen[bytes]

    @property
    def config(self) -> Path:
        """An ssh configuration file with the right key and the right host key."""
        return self.folder / "ssh_config"

    @property
    def device(self) -> str:
        return f"device=ssh://127.0.0.1:{self.port}"

    def words(self, port: int | None = None) -> list[str]:
        """What is typed to run there, with a Python that has everything."""
        device = f"device=ssh://127.0.0.1:{port}" if port else self.device
        return [
            device, f"remote.ssh_config={self.config}", f"remote.folder={self.there}",
            f"remote.python={sys.executable}",
        ]  # fmt: skip

    def know(self, port: int, key: str | None = None) -> None:
        """Let the person know the host key (or another) of a port."""
        public = key or (self.folder / "host_key.pub").read_text()
        kind, text, *_ = public.split()
        with (self.folder / "known_hosts").open("a") as file:
            file.write(f"[127.0.0.1]:{port} {kind} {text}\n")

    def stop(self) -> None:
        """End it, and what still works in its folder or for it, where a test failed."""
        self.process.terminate()
        self.process.wait(10)
        for pid in at_work(self.folder):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def at_work(folder: Path) -> list[int]:
    """Processes that stand in a folder, or whose command names it. Knows Linux only."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            place = os.readlink(process / "cwd")
            command = (process / "cmdline").read_bytes().decode(errors="replace")
            if Path(place).is_relative_to(folder) or f"{folder}/" in command:
                found.append(int(process.name))
    return [pid for pid in found if pid != os.getpid()]


def new_key(file: Path) -> str:
    """Make a key pair; returns the public one."""
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(file)], check=True)
    return file.with_name(f"{file.name}.pub").read_text()


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return int(one.getsockname()[1])


def start(folder: Path, path: str | None = None) -> Machine:
    """An sshd that lets this user in by a new key. `path` is PATH there."""
    assert SSHD is not None
    folder.mkdir(parents=True, exist_ok=True)
    new_key(folder / "host_key")
    (folder / "authorized_keys").write_text(new_key(folder / "key"))
    port = free_port()
    if os.geteuid() == 0:  # where sshd as root wants an empty folder
        Path("/run/sshd").mkdir(exist_ok=True)
    (folder / "sshd_config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host_key\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nPidFile none\nUsePAM no\nStrictModes no\n"
        "PasswordAuthentication no\nKbdInteractiveAuthentication no\nPermitRootLogin yes\n"
        f"MaxStartups 100\nSetEnv PATH={path or os.environ['PATH']} LAB_OFFLINE=1 NO_COLOR=1 "
        "OMP_NUM_THREADS=1\n"
    )
    (folder / "ssh_config").write_text(
        f"Host *\n  IdentityFile {folder}/key\n  IdentitiesOnly yes\n"
        f"  UserKnownHostsFile {folder}/known_hosts\n  GlobalKnownHostsFile /dev/null\n"
    )
    process = subprocess.Popen(
        [SSHD, "-D", "-e", "-f", str(folder / "sshd_config")],
        stdout=subprocess.DEVNULL, stderr=(folder / "sshd.log").open("wb"),
    )  # fmt: skip
    machine = Machine(folder, port, folder / "there", process)
    machine.know(port)
    for _ in range(200):
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
            return machine
        time.sleep(0.05)
    machine.stop()
    raise RuntimeError((folder / "sshd.log").read_text())


class Proxy:
    """Passes connections on to a port. `cut` ends all that are open, and `closed` refuses new
    ones.
    """

    def __init__(self, port: int) -> None:
        self.target, self.closed, self.connections = port, False, 0
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                one, _ = self._listener.accept()
                if self.closed:
                    one.close()
                    continue
                self.connections += 1
                other = socket.create_connection(("127.0.0.1", self.target))
                self._pairs.append((one, other))
                for a, b in ((one, other), (other, one)):
                    threading.Thread(target=self._pass_on, args=(a, b), daemon=True).start()

    @staticmethod
    def _pass_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while block := source.recv(1 << 16):
                target.sendall(block)
        for one in (source, target):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def cut(self) -> int:
        """End what is open; returns how many lines that were."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for one in pair:
                with contextlib.suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
        return len(pairs)

    def close(self) -> None:
        self._listener.close()
        self.cut()


@contextlib.contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    one = Proxy(port)
    try:
        yield one
    finally:
        one.close()


def script(file: Path, text: str) -> Path:
    """A program of that text."""
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(f"#!/bin/sh\n{text}\n")
    file.chmod(0o755)
    return file
