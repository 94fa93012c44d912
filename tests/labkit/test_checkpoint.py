"""A checkpoint gives back what was put in, to the type and the bit, or refuses it by name."""

from __future__ import annotations

import shutil
from collections import Counter, OrderedDict, defaultdict, namedtuple
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from labkit.errors import RunFailed
from labkit.state import checkpoint, tracked


def round_trip(folder: Path, state: Any) -> Any:
    return checkpoint.load(checkpoint.save(folder, 1, {"state": state}))["state"]


@pytest.mark.parametrize("kind", [torch.tensor, np.array])
def test_keys_that_are_written_alike_stay_apart(tmp_path: Path, kind: Any) -> None:
    """1 and "1", and a name with a point in it, make one path for two tensors."""
    state = {1: kind([1.0]), "1": kind([2.0]), "a": [kind([3.0])], "a.0": kind([4.0])}
    back = round_trip(tmp_path, state)
    assert list(back) == [1, "1", "a", "a.0"]
    found = [back[1], back["1"], back["a"][0], back["a.0"]]
    assert [float(value[0]) for value in found] == [1, 2, 3, 4]


def test_keys_keep_their_type(tmp_path: Path) -> None:
    keys = [True, 2, 2.5, "2", (1, "1"), None, np.int64(7)]
    back = round_trip(tmp_path, {key: i for i, key in enumerate(keys)})
    assert [(type(key), key) for key in back] == [(type(key), key) for key in keys]


@pytest.mark.parametrize(
    "value",
    [np.float32(0.1), np.float64(0.1), np.int64(3), np.uint8(200), np.bool_(True), np.float16(2)],
)
@pytest.mark.parametrize("beside", [{}, {"tensor": torch.zeros(2)}])
def test_numpy_numbers_keep_their_precision(tmp_path: Path, value: Any, beside: Any) -> None:
    """A float32 that came back as Python's would make later sums float64."""
    back = round_trip(tmp_path, {"value": value, **beside})["value"]
    assert (type(back), back) == (type(value), value)


def test_containers_keep_their_kind(tmp_path: Path) -> None:
    state = {"o": OrderedDict(b=1, a=2), "c": Counter("aab"), "t": (1, [2, (3,)]), "l": [1, {}]}
    back = round_trip(tmp_path, state)
    assert back == state
    assert [type(v) for v in back.values()] == [OrderedDict, Counter, tuple, list]
    assert type(back["t"][1][1]) is tuple
    assert list(back["o"]) == ["b", "a"]


def test_arrays_keep_their_order_in_memory(tmp_path: Path) -> None:
    back = round_trip(tmp_path, {"f": np.asfortranarray(np.eye(3)[:2]), "c": np.eye(3)[:2]})
    assert back["f"].flags.f_contiguous
    assert not back["f"].flags.c_contiguous
    assert back["c"].flags.c_contiguous


Pair = namedtuple("Pair", "a b")


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (Pair(1, 2), "is a Pair"),
        (defaultdict(list), "is a defaultdict"),
        (np.array(["a"]), "array, which a checkpoint cannot hold"),
        (np.array([None]), "object array"),
        (np.array([1j]), "complex128 array"),
        (np.array([1], dtype=">i4"), ">i4 array"),
        (np.ma.masked_equal([1, 2], 1), "is a MaskedArray"),
        (torch.eye(2).to_sparse(), "float32 tensor, which a checkpoint cannot hold"),
        ({1, 2}, "is a set"),
        (b"bytes", "is a bytes"),
        (2 + 1j, "is a complex"),
    ],
)
def test_what_would_come_back_as_something_else_is_refused(
    tmp_path: Path, value: Any, said: str
) -> None:
    with pytest.raises(TypeError, match=r"state\.state\.deep\.0 ") as error:
        round_trip(tmp_path, {"deep": [value]})
    assert said in str(error.value)
    with pytest.raises(TypeError, match="as a key"):
        round_trip(tmp_path, {torch.zeros(1): 1})


def test_a_tracked_dict_keeps_its_kind_and_takes_the_saved_order() -> None:
    """Sums over a dict follow its order, so the order is part of the state."""
    saved = tracked.get_state(defaultdict(list, {"b": [1.0], "a": [2.0]}))
    thing = defaultdict(list, {"a": [], "b": []})
    inner = thing["a"]
    tracked.set_state(thing, saved, "thing")
    assert (type(thing), list(thing.items())) == (defaultdict, [("b", [1.0]), ("a", [2.0])])
    assert thing["a"] is inner, "who holds the list sees what was restored"
    assert thing["new"] == []


def _free(monkeypatch: pytest.MonkeyPatch, free: int) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))


def test_the_spare_checkpoint_makes_room_for_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for step in (1, 2):
        checkpoint.save(tmp_path, step, {"x": torch.zeros(1000)})
    _free(monkeypatch, 3999)

    def full(tensors: Any, path: Path, metadata: Any) -> None:
        left.extend(p.name for p in tmp_path.glob("*.safetensors"))
        raise OSError(28, "No space left on device")

    left: list[str] = []
    monkeypatch.setattr(checkpoint, "_save_file", full)
    with pytest.raises(RunFailed, match=r"step 3 .* No space left .* resume"):
        checkpoint.save(tmp_path, 3, {"x": torch.zeros(1000)})
    assert left == ["step-000000002.safetensors"], "the newest stays until the next is whole"


def test_room_is_looked_at_in_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    size = checkpoint.size_of({"a": torch.zeros(1000), "b": [np.zeros(1000)]})
    assert size == 12_000
    _free(monkeypatch, size)
    assert checkpoint.too_little_room(tmp_path, size) is None
    _free(monkeypatch, 2_000_000)
    text = checkpoint.too_little_room(tmp_path, 5_000_000)
    assert text is not None
    assert "needs 5 MB, but only 2 MB are free" in text
