"""Downloads that verify what they got, never leave half a file, and notice a missing network at
once.
"""

from __future__ import annotations

import hashlib
import os
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from labkit.data.kinds import DataError

NETWORK_SECONDS = 4.0
"""How long a host may take to answer before the network counts as missing."""


def offline() -> bool:
    """Whether downloads are forbidden: LAB_OFFLINE or HF_HUB_OFFLINE is set to something true."""
    return any(
        os.environ.get(name, "0").lower() not in ("", "0", "false")
        for name in ("LAB_OFFLINE", "HF_HUB_OFFLINE")
    )


def reachable(url: str, seconds: float = NETWORK_SECONDS) -> bool:
    """Whether `url` answers within `seconds`, name lookup and proxy included.

    A name lookup cannot be given a time limit, so it runs in a thread that is abandoned.
    """
    if offline():
        return False
    answered = threading.Event()

    def ask() -> None:
        request = urllib.request.Request(url, method="HEAD")
        try:
            urllib.request.urlopen(request, timeout=seconds).close()
            answered.set()
        except urllib.error.HTTPError:
            answered.set()  # It answered, which is enough.
        except OSError:
            pass
        finally:
            done.set()

    done = threading.Event()
    threading.Thread(target=ask, daemon=True).start()
    done.wait(seconds)
    return answered.is_set()


def obtain(folder: Path, url: str, what: str, fetch: Callable[[Path], None]) -> None:
    """Make sure that `folder` is there: fetch(temporary folder) fills it, and it appears whole or
    not at all.

    Raises DataError when `url` does not answer or the download fails. A second process that wants
    the same folder waits for the first and uses its result.
    """
    import shutil
    import tempfile

    from filelock import FileLock

    if not reachable(url):
        why = (
            "LAB_OFFLINE is set"
            if offline()
            else f"its host did not answer within {NETWORK_SECONDS:g} s"
        )
        raise DataError(f"{what} is not on this machine and cannot be downloaded: {why}.")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.parent / f".{folder.name}.lock"):
            if folder.exists():
                return
            partial = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
            stall = socket.getdefaulttimeout()
            socket.setdefaulttimeout(20)  # A transfer that stalls ends, too.
            try:
                fetch(partial)
                os.replace(partial, folder)
            finally:
                socket.setdefaulttimeout(stall)
                shutil.rmtree(partial, ignore_errors=True)
    except Exception as error:  # the libraries that fetch raise many types
        raise DataError(
            f"the download of {what} failed: {type(error).__name__}: {error}"
        ) from error


def download(url: str, path: Path, sha256: str) -> None:
    """Fetch one file. Raises OSError when that fails or the SHA-256 differs."""
    with urllib.request.urlopen(url) as response, path.open("wb") as file:
        while block := response.read(1 << 20):
            file.write(block)
    if (got := hashlib.sha256(path.read_bytes()).hexdigest()) != sha256:
        path.unlink()
        raise OSError(f"{url} gave a file with SHA-256 {got}, expected {sha256}")
