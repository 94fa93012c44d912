"""Folders of weights from elsewhere: errors name the folder and its fault.

Libraries raise many types for a damaged folder (OSError, ValueError, KeyError, SafetensorError,
UnpicklingError ...), and for some faults raise nothing: transformers fills missing weights with
random numbers and ignores unknown ones.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from labkit.errors import UsageError
from labkit.text import short


@contextmanager
def opening(folder: Path | str, what: str, fix: str) -> Iterator[None]:
    """Context to open a model in: other exceptions become a UsageError that names the folder.

    Args:
        what: the expected content of the folder, e.g. `classifier`.
        fix: what to type or do, a sentence without its full stop.
    """
    try:
        yield
    except UsageError:
        raise
    except Exception as error:
        raise UsageError(
            f"{folder} holds no {what} that can be opened: {type(error).__name__}: "
            f"{short(error, 300)}. {fix}."
        ) from error


def check_loaded(info: Mapping[str, Any], folder: Path | str) -> None:
    """Raises UsageError when from_pretrained(..., output_loading_info=True) says in `info` that
    the weights in `folder` are not exactly those of the model.
    """
    for key, said in (
        ("missing_keys", "lack"),
        ("unexpected_keys", "have, in addition to those of the model,"),
        ("mismatched_keys", "have in another shape"),
    ):
        if found := sorted(map(str, info.get(key) or ())):
            names = ", ".join(found[:3]) + (f" and {len(found) - 3} more" if found[3:] else "")
            raise UsageError(
                f"the weights in {folder} do not fit its config.json: they {said} {names}. "
                "Take both from one model."
            )


def check_finite(model: Any, folder: Path | str) -> None:
    """Raises UsageError when a weight of the torch module is not a finite number."""
    for name, value in model.state_dict().items():
        if value.is_floating_point() and not value.isfinite().all():
            raise UsageError(
                f"the weights in {folder} are damaged: {name} has values that are not finite"
            )
