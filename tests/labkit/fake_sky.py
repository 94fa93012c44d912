"""SkyPilot's Python API as `labkit.remote` calls it, without clouds: what is asked is recorded, and
the machine is an sshd of the test.

The names, arguments and results are those of SkyPilot 0.14; `test_remote_sky.py` compares the
signatures with the library's own where it is installed.
"""

from __future__ import annotations

import os
import re
import subprocess
from types import SimpleNamespace
from typing import Any


class Cloud:
    """One that can stop its machines, or cannot."""

    def __init__(self, name: str, can_stop: bool) -> None:
        self.name, self.can_stop = name, can_stop

    def __str__(self) -> str:
        return self.name

    def check_features_are_supported(self, resources: Any, features: set[str]) -> None:
        if not self.can_stop:
            raise NotImplementedError(f"{self.name} has not: {features}")


class Resources:
    def __init__(self, **asked: Any) -> None:
        self.asked = asked


class Task:
    def __init__(
        self,
        name: str | None = None,
        *,
        setup: str | None = None,
        run: str | None = None,
        secrets: dict[str, str] | None = None,
    ) -> None:
        self.name, self.setup, self.run, self.secrets = name, setup, run, secrets
        self.resources: Any = None
        self.config: dict[str, Any] = {}

    def set_resources(self, resources: Any) -> None:
        self.resources = resources

    @staticmethod
    def from_yaml_config(config: dict[str, Any]) -> Task:
        task = Task(config["name"], setup=config["setup"], run=config["run"])
        task.config = config
        return task


class FakeSky:
    """The module `sky`, and its server."""

    Resources, Task = Resources, Task
    clouds = SimpleNamespace(
        CloudImplementationFeatures=SimpleNamespace(STOP="stop", AUTOSTOP="autostop")
    )

    def __init__(self, can_stop: bool = True) -> None:
        self.calls: list[tuple[str, dict[str, Any]]] = []
        self.fails: dict[str, BaseException] = {}
        """What a request of that name raises."""
        self.cloud, self.enabled = Cloud("GCP", can_stop), ["GCP", "AWS"]
        self.machines: dict[str, str] = {}
        """Status by name."""
        self.processes: list[subprocess.Popen[bytes]] = []
        self.jobs = SimpleNamespace(
            launch=self._jobs_launch, queue=self._jobs_queue, cancel=self._jobs_cancel,
            tail_logs=self._jobs_tail_logs,
        )  # fmt: skip
        self.client = SimpleNamespace(sdk=SimpleNamespace(enabled_clouds=self.enabled_clouds))
        self.job_status = "RUNNING"

    def names(self) -> list[str]:
        """The calls so far."""
        return [name for name, _ in self.calls]

    def _asked(self, call: str, result: Any, /, **arguments: Any) -> Any:
        self.calls.append((call, arguments))
        return SimpleNamespace(name=call, result=result)

    def stream_and_get(self, request: Any) -> Any:
        if (error := self.fails.get(request.name)) is not None:
            raise error
        return request.result

    def enabled_clouds(self) -> Any:
        return self._asked("enabled_clouds", self.enabled)

    def list_accelerators(
        self,
        name_filter: str | None = None,
        quantity_filter: int | None = None,
        clouds: list[str] | None = None,
        case_sensitive: bool = True,
    ) -> Any:
        found = {
            name: [
                SimpleNamespace(cloud="GCP", price=2.5, spot_price=0.9, region="us-central1"),
                SimpleNamespace(cloud="AWS", price=2.9, spot_price=None, region="us-east-1"),
            ]
            for name in ("A100", "A100-80GB", "H100", "T4")
            if re.search(name_filter or "", name)
        }
        return self._asked("list_accelerators", found, clouds=clouds, count=quantity_filter)

    def launch(
        self,
        task: Task,
        cluster_name: str | None = None,
        idle_minutes_to_autostop: int | None = None,
        down: bool = False,
    ) -> Any:
        self.machines[str(cluster_name)] = "UP"
        got = SimpleNamespace(
            cloud=self.cloud, instance_type="a3-highgpu-1g", region="us-west1",
            get_cost=lambda seconds: 2.8 * seconds / 3600,
        )  # fmt: skip
        return self._asked(
            "launch", (None, SimpleNamespace(launched_resources=got)), name=cluster_name, down=down,
            idle=idle_minutes_to_autostop, setup=task.setup, asked=task.resources.asked,
        )  # fmt: skip

    def autostop(self, cluster_name: str, idle_minutes: int, down: bool = False) -> Any:
        return self._asked("autostop", None, name=cluster_name, idle=idle_minutes, down=down)

    def exec(self, task: Task, cluster_name: str | None = None) -> Any:
        env = {**os.environ, **(task.secrets or {})}
        self.processes.append(subprocess.Popen(["sh", "-c", task.run or ""], env=env))
        return self._asked("exec", (1, None), name=cluster_name, run=task.run)

    def status(self, cluster_names: list[str] | None = None) -> Any:
        found = [{"status": self.machines[n]} for n in cluster_names or [] if n in self.machines]
        return self._asked("status", found)

    def start(self, cluster_name: str) -> Any:
        self.machines[cluster_name] = "UP"
        return self._asked("start", None, name=cluster_name)

    def down(self, cluster_name: str) -> Any:
        if "down" not in self.fails:
            self.machines.pop(cluster_name, None)
        return self._asked("down", None, name=cluster_name)

    def _jobs_launch(self, task: Task, name: str | None = None) -> Any:
        return self._asked("jobs.launch", ([7], None), name=name, config=task.config)

    def _jobs_queue(self, refresh: bool, skip_finished: bool = False) -> Any:
        return self._asked("jobs.queue", [{"job_id": 7, "status": self.job_status}])

    def _jobs_cancel(self, job_ids: list[int] | None = None) -> Any:
        self.job_status = "CANCELLED"
        return self._asked("jobs.cancel", None, ids=job_ids)

    def _jobs_tail_logs(self, job_id: int | None = None, follow: bool = True) -> int:
        self._asked("jobs.tail_logs", None, id=job_id, follow=follow)
        return 0
