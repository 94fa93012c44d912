"""A made-up lab for the tests of the exercise system: weeks of a file or two, in any folder."""

from pathlib import Path

from labkit.exercises.check import check
from labkit.exercises.start import start
from labkit.exercises.verify import verify

STATS = '''\
"""Means and the like."""

from labkit.exercises.mark import exercise


@exercise(minutes=5)
def mean(x: list[float]) -> float:
    """The arithmetic mean: sum(x) / len(x)."""
    total = sum(x)
    return total / len(x)


class Running:
    """A mean that is updated one number at a time."""

    def __init__(self) -> None:
        self.count, self.mean = 0, 0.0

    @exercise(minutes=10)
    def update(self, x: float) -> float:
        """Welford's update of the mean. Returns it."""
        self.count += 1
        self.mean += (x - self.mean) / self.count
        return self.mean
'''

TESTS = """\
import pytest

from toy.stats import Running, mean


@pytest.mark.exercise("stats.mean")
@pytest.mark.parametrize("x", [[1.0, 2.0, 6.0], [2.0, 4.0]])
def test_mean(x):
    assert mean(x) == 3.0


@pytest.mark.exercise("stats.Running.update")
def test_running_mean_is_the_mean(three):
    running = Running()
    assert [running.update(x) for x in three] == [1.0, 1.5, 3.0]


def test_that_is_no_exercise():
    raise SystemExit("only tests of the exercise may run")
"""

CONFTEST = """\
import pytest


@pytest.fixture
def three():
    return [1.0, 2.0, 6.0]
"""

BUGS = """\
stats.mean:
  - name: divides by one more
    replace: len(x)
    with: (len(x) + 1)
  - name: forgets to divide
    replace: total / len(x)
    with: total
stats.Running.update:
  - name: counts too late
    replace: "self.count += 1"
    with: "self.count = max(1, self.count)"
  - name: wrong sign
    replace: x - self.mean
    with: self.mean - x
"""


class Lab:
    """A repository with the week "toy", or whatever it is called."""

    def __init__(self, root: Path, week: str = "toy") -> None:
        folder = week.replace(".", "/")
        self.root, self.week, self.own = root, week, root / "workspace" / folder
        self.write(f"{folder}/__init__.py", '"""A week."""\n')
        self.write(f"{folder}/stats.py", STATS)
        self.write(f"tests/{folder}/test_stats.py", TESTS.replace("toy.stats", f"{week}.stats"))
        self.write(f"tests/{folder}/conftest.py", CONFTEST)
        self.write(f"tests/{folder}/bugs.yaml", BUGS)

    def write(self, name: str, text: str) -> None:
        (self.root / name).parent.mkdir(parents=True, exist_ok=True)
        (self.root / name).write_text(text)

    def edit(self, name: str, old: str, new: str) -> None:
        text = (self.root / name).read_text()
        assert text.count(old) == 1, f"{old!r} must occur once in {name}"
        (self.root / name).write_text(text.replace(old, new))

    def start(self, force: bool = False) -> int:
        return start(self.week, force, root=self.root, workspace=self.root / "workspace")

    def solve(self, name: str = "stats.py", text: str = STATS) -> None:
        (self.own / name).write_text(text)

    def check(self, only: str | None = None) -> int:
        return check(self.week, only, root=self.root, workspace=self.root / "workspace")

    def verify(self, fresh: bool = False) -> int:
        return verify(self.week, fresh=fresh, root=self.root)
