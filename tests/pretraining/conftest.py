"""The network as `experiment=broken_mask` trains it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from types import ModuleType

import pytest

from labkit import bugs


@pytest.fixture
def gpt_with_broken_mask(monkeypatch: pytest.MonkeyPatch) -> Callable[..., object]:
    """The class GPT of a copy of model.py with that bug in it."""
    file, text = bugs.planted(
        "pretraining", "model.Attention.forward: a token sees the one after its own"
    )
    module = ModuleType("pretraining_with_broken_mask")
    monkeypatch.setitem(sys.modules, module.__name__, module)
    exec(compile(text, file, "exec"), module.__dict__)
    made: Callable[..., object] = module.__dict__["GPT"]
    return made
