"""Numbers in the key=value words of small commands."""

from __future__ import annotations

import pytest

from labkit.config.words import real_number, whole_number
from labkit.errors import UsageError


def test_numbers_are_read() -> None:
    assert whole_number("n", "12") == 12
    assert isinstance(whole_number("n", "12", 12, 12), int)
    assert whole_number("n", "-3") == -3
    assert real_number("rate", "2") == 2.0
    assert isinstance(real_number("rate", "2"), float)
    assert real_number("rate", "1e-3", 1e-3, 1) == 0.001


@pytest.mark.parametrize(
    ("text", "bounds", "said"),
    [
        ("many", (), "n=many: a whole number is needed"),
        ("", (1,), "n=: a whole number of at least 1 is needed"),
        ("0", (1,), "n=0: a whole number of at least 1 is needed"),
        ("1.5", (None, 3), "n=1.5: a whole number of at most 3 is needed"),
        ("4", (None, 3), "n=4: a whole number of at most 3 is needed"),
        ("65536", (0, 65535), "n=65536: a whole number from 0 to 65535 is needed"),
    ],
)
def test_what_is_no_whole_number_is_refused(
    text: str, bounds: tuple[int | None, ...], said: str
) -> None:
    with pytest.raises(UsageError, match=said):
        whole_number("n", text, *bounds)


@pytest.mark.parametrize("text", ["fast", "nan", "inf", "-inf", "0", "1e999"])
def test_what_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(UsageError, match=f"rate={text}: a number of at least 0.1 is needed"):
        real_number("rate", text, 0.1)
