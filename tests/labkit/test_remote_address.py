"""Addresses of rented machines: what is read, what is refused, and that nothing gets to a shell."""

from __future__ import annotations

from typing import Any

import pytest

from labkit.errors import UsageError
from labkit.machine.address import SSH, Sky, parse, quoted


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("auto", None),
        ("cpu", None),
        ("cuda:1", None),
        ("ssh://gpubox", SSH("gpubox")),
        ("ssh://root@10.0.0.7:2222", SSH("10.0.0.7", "root", 2222)),
        ("ssh://me@a-b.example.org", SSH("a-b.example.org", "me")),
        ("ssh://[::1]:22", SSH("::1", None, 22)),
        ("ssh://me@[fe80::2]", SSH("fe80::2", "me")),
        ("sky://H100:1", Sky("H100")),
        ("sky://h100", Sky("H100")),
        ("sky://A100-80GB:8", Sky("A100-80GB", 8)),
        ("sky://T4:1?cloud=gcp&spot=true", Sky("T4", 1, "gcp", None, True)),
        ("sky://L4:2?cloud=aws&region=us-east-1", Sky("L4", 2, "aws", "us-east-1")),
    ],
)
def test_what_is_an_address(text: str, found: Any) -> None:
    assert parse(text) == found
    if found is not None:
        assert parse(str(found)) == found, "an address is printed as it is typed"


@pytest.mark.parametrize(
    "text",
    [
        "ssh://",
        "ssh://@host",
        "ssh://host:",
        "ssh://host:0",
        "ssh://host:65536",
        "ssh://host:22x",
        "ssh://host:٢٢",
        "ssh://-oProxyCommand=id",
        "ssh://-l@host",
        "ssh://a b",
        "ssh://host;id",
        "ssh://host$(id)",
        "ssh://host`id`",
        "ssh://host|id",
        "ssh://host&id",
        "ssh://us'er@host",
        'ssh://us"er@host',
        "ssh://user:secret@host",
        "ssh://host/path",
        "ssh://host\n",
        "ssh://one,ssh://two",
        "ssh://[::1",
        "ssh://[::1]22",
        "ssh://[zz]:1",
        "sky://H100:0",
        "sky://H100:99",
        "sky://H100:1.5",
        "sky://H100:1?spot=yes",
        "sky://H100:1?region=us-east-1",
        "sky://H100:1?cloud=gcp&region=$(id)",
        "sky://$(id)",
    ],
)
def test_what_is_none(text: str) -> None:
    with pytest.raises(UsageError, match="device="):
        parse(text)


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("sky://H10:1", "did you mean H100?"),
        ("sky://A100-80:1", "did you mean A100-80GB?"),
        ("sky://4090", "did you mean RTX4090?"),
        ("shh://host", "did you mean ssh?"),
        ("sky://T4:1?could=gcp", "did you mean cloud?"),
        ("sky://T4:1?cloud=gpc", "did you mean gcp?"),
        ("ssh://host:99999", "from 1 to 65535"),
        ("docker://host", "ssh://user@host:22 or sky://H100:1"),
    ],
)
def test_the_message_says_what_to_type(text: str, hint: str) -> None:
    with pytest.raises(UsageError) as error:
        parse(text)
    assert hint in str(error.value)


def test_only_an_address_is_quoted_for_hydra() -> None:
    word = "device=sky://T4:1?cloud=gcp&spot=true"
    assert quoted(word) == "device='sky://T4:1?cloud=gcp&spot=true'"
    assert quoted("+device=ssh://host") == "+device='ssh://host'"
    for word in ("device=cuda:1", "seed=1", "+size=tiny", "data=http://x"):
        assert quoted(word) == word
    with pytest.raises(UsageError):
        quoted("device=ssh://x'+seed=1")


def test_hydra_reads_a_quoted_address(toy: Any) -> None:
    request = toy.compose(["+size=smoke", quoted("device=sky://T4:1?cloud=gcp&spot=true")])
    assert request.config.device == "sky://T4:1?cloud=gcp&spot=true"
