"""`lab smoke`: every built week at size smoke, each in a process and a folder of its own."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence

from labkit import course, paths
from labkit.show.console import fail, say


def smoke(programs: Sequence[str] = ()) -> int:
    """Run them (all built ones without any); returns the exit code of the first that fails."""
    everything = [name for unit in course.load().units if unit.built for name in unit.programs]
    for program in programs or everything:
        say(f"== {program}")
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as home:
            command = [sys.executable, "-m", f"{program}.train", "+size=smoke"]
            env = {**os.environ, "LAB_HOME": home}
            code = subprocess.run(command, cwd=paths.ROOT, env=env, check=False).returncode
        if code:
            fail(f"{program} ended with exit code {code}")
            return code
    return 0
