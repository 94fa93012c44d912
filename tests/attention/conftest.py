"""Modules of the week with one of its bugs in them, as the broken experiments train on them."""

from collections.abc import Callable
from types import ModuleType

import pytest

from labkit import bugs


@pytest.fixture
def planted() -> Callable[[str], ModuleType]:
    """planted("module.function: name of the bug") -> the module with that bug, not imported."""

    def load(said: str) -> ModuleType:
        file, text = bugs.planted("attention", said)
        module = ModuleType(f"attention.{file.stem}")
        exec(compile(text, file, "exec"), module.__dict__)
        return module

    return load
