"""The order of stages, and the chain that goes through them and comes back where it was."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import networkx
import numpy as np
import pytest

from capstone import stages
from capstone.stages import Chain, Once, Stage
from labkit import RunFailed, UsageError

DIAMOND = {"judge": ["left", "right"], "right": ["base"], "left": ["base"], "base": []}


@pytest.mark.exercise("stages.order")
def test_each_stage_comes_after_what_it_needs_and_the_first_listed_comes_first() -> None:
    assert stages.order(DIAMOND) == ["base", "right", "left", "judge"]
    assert stages.order({"a": [], "b": [], "c": ["a"]}) == ["a", "b", "c"]
    assert stages.order({"c": ["a"], "b": [], "a": []}) == ["b", "a", "c"]
    assert stages.order({}) == []


@pytest.mark.exercise("stages.order")
def test_a_finished_stage_is_not_done_again() -> None:
    assert stages.order(DIAMOND, ["base"]) == ["right", "left", "judge"]
    assert stages.order(DIAMOND, {"left", "base"}) == ["right", "judge"]
    assert stages.order(DIAMOND, {"judge": 1, "right": 2, "left": 3, "base": 4}) == []
    assert stages.order({"a": ["b"], "b": []}, ["a"]) == ["b"]


@pytest.mark.exercise("stages.order")
def test_random_graphs_are_ordered_as_networkx_does() -> None:
    rng = np.random.default_rng(0)
    for size in range(1, 9):
        names = [f"s{i}" for i in range(size)]
        hidden = rng.permutation(names).tolist()
        needs = {
            name: [o for o in hidden[: hidden.index(name)] if rng.random() < 0.4] for name in names
        }
        graph = networkx.DiGraph([(o, n) for n, group in needs.items() for o in group])
        graph.add_nodes_from(names)
        expected = list(networkx.lexicographical_topological_sort(graph))
        before = {name: list(group) for name, group in needs.items()}
        assert stages.order(needs) == expected
        assert needs == before, "the argument is as it was"


@pytest.mark.exercise("stages.order")
@pytest.mark.parametrize(
    ("needs", "finished", "word"),
    [
        ({"a": ["b"], "b": ["a"]}, (), "circle"),
        ({"a": ["a"]}, (), "circle"),
        ({"c": [], "a": ["b"], "b": ["a"]}, ["c"], "circle"),
        ({"a": ["nowhere"]}, (), "nowhere"),
        ({"a": []}, ["older"], "older"),
    ],
)
def test_what_cannot_be_ordered_is_named(
    needs: dict[str, list[str]], finished: Any, word: str
) -> None:
    with pytest.raises(ValueError, match=word):
        stages.order(needs, finished)


FINISH = -1
"""Fails at the end of a stage, not in a step."""


class Counter:
    """A session that counts, and can fail once."""

    def __init__(self, log: list[str], name: str, fails: list[int]) -> None:
        self.log, self.name, self.fails, self.sum = log, name, fails, {"sum": 0}

    @property
    def tracked(self) -> dict[str, Any]:
        return {"sum": self.sum}

    def step(self, number: int) -> dict[str, Any]:
        if number in self.fails:
            self.fails.remove(number)
            raise RunFailed("the disk is gone")
        self.log.append(f"{self.name}{number}")
        self.sum["sum"] += number + 1
        return {"sum": self.sum["sum"]}

    def finish(self, folder: Path) -> dict[str, float]:
        if FINISH in self.fails:
            self.fails.remove(FINISH)
            raise RunFailed("the disk is gone")
        (folder / "out.txt").write_text(self.name)
        return {"total": self.sum["sum"]}


def chain_of(home: Path, log: list[str], fails: list[int] | None = None) -> Chain:
    each = [
        Stage("b", ("a",), lambda: Counter(log, "b", fails if fails is not None else []), 3),
        Stage("a", (), lambda: Counter(log, "a", []), 2),
        Stage("c", ("b",), lambda: Once(lambda folder: {"files": len(list(folder.iterdir()))})),
    ]
    return Chain(each, home)


def test_a_chain_does_every_step_of_every_stage_once(tmp_path: Path) -> None:
    log: list[str] = []
    chain = chain_of(tmp_path, log)
    assert chain.steps == 6
    logged = [chain.step() for _ in range(chain.steps)]
    assert log == ["a0", "a1", "b0", "b1", "b2"]
    assert logged[1] == {"a/sum": 3}
    assert chain.results == {"a": {"total": 3.0}, "b": {"total": 6.0}, "c": {"files": 0.0}}
    assert chain.left == []
    kept = json.loads((tmp_path / "b" / "stage.json").read_text())
    assert kept["metrics"] == {"total": 6.0}
    assert list(stages.facts(tmp_path)) == ["a", "b", "c"]
    assert (tmp_path / "b" / "out.txt").read_text() == "b"
    assert not list(tmp_path.glob(".*"))


@pytest.mark.parametrize("cut", range(6))
def test_a_chain_goes_on_from_its_state_wherever_it_was_cut(tmp_path: Path, cut: int) -> None:
    first: list[str] = []
    chain = chain_of(tmp_path, first)
    for _ in range(cut):
        chain.step()
    state = json.loads(json.dumps(chain.state_dict()))
    second: list[str] = []
    again = chain_of(tmp_path, second)
    again.load_state_dict(state)
    for _ in range(cut, again.steps):
        again.step()
    assert [*first, *second] == ["a0", "a1", "b0", "b1", "b2"]
    assert again.results == {"a": {"total": 3.0}, "b": {"total": 6.0}, "c": {"files": 0.0}}


@pytest.mark.parametrize(("fails", "step"), [(0, 2), (1, 3), (2, 4), (FINISH, 4)])
def test_a_stage_that_failed_is_named_and_gone_on_with(
    tmp_path: Path, fails: int, step: int
) -> None:
    log: list[str] = []
    chain = chain_of(tmp_path, log, fails=[fails])
    for _ in range(step):
        chain.step()
    with pytest.raises(RunFailed, match=r"(?s)stage b: the disk is gone.*kept: a\..*with b"):
        chain.step()
    again = chain_of(tmp_path, log)
    again.load_state_dict(json.loads(json.dumps(chain.state_dict())))
    for _ in range(step, again.steps):  # a run does the step that failed, and those after it
        again.step()
    assert again.left == []
    assert log == ["a0", "a1", "b0", "b1", "b2"]
    assert again.results["b"] == {"total": 6.0}


def test_a_stage_that_cannot_begin_is_named(tmp_path: Path) -> None:
    def no() -> Any:
        raise UsageError("there is no base")

    with pytest.raises(UsageError, match=r"(?s)stage x: there is no base.*kept: none"):
        Chain([Stage("x", (), no)], tmp_path).step()


def test_the_state_of_another_track_is_refused(tmp_path: Path) -> None:
    chain = chain_of(tmp_path, [])
    state = chain.state_dict()
    with pytest.raises(ValueError, match="older"):
        chain.load_state_dict({**state, "results": {"older": {}}})
    with pytest.raises(ValueError, match="'gone' to go on with"):
        chain.load_state_dict({**state, "results": {}, "stage": "gone"})
