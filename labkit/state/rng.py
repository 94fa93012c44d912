"""States of the global random number generators."""

from __future__ import annotations

import random
import sys
from typing import Any

import numpy as np


def rng_state() -> dict[str, Any]:
    """States of the global generators: Python's, NumPy's legacy one and, when torch is loaded,
    torch's.
    """
    version, numbers, gauss = random.getstate()
    kind, keys, position, has_gauss, cached = np.random.get_state(legacy=True)  # type: ignore[misc]  # noqa: NPY002
    state: dict[str, Any] = {
        "python": (version, np.asarray(numbers, dtype=np.int64), gauss),
        "numpy": (kind, np.asarray(keys), int(position), int(has_gauss), float(cached)),
    }
    if (torch := sys.modules.get("torch")) is not None:
        state["torch"] = torch.get_rng_state()
        if torch.cuda.is_available():
            state["cuda"] = list(torch.cuda.get_rng_state_all())
    return state


def set_rng_state(state: dict[str, Any]) -> None:
    """Put back what `rng_state` took."""
    version, numbers, gauss = state["python"]
    random.setstate((version, tuple(int(n) for n in numbers), gauss))
    np.random.set_state(state["numpy"])  # noqa: NPY002
    if (torch := sys.modules.get("torch")) is not None and "torch" in state:
        torch.set_rng_state(state["torch"])
        if torch.cuda.is_available() and len(state.get("cuda", [])) == torch.cuda.device_count():
            torch.cuda.set_rng_state_all(state["cuda"])
