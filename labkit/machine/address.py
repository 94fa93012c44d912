"""Addresses of rented machines, `ssh://user@host:port` and `sky://H100:1`, read strictly.

What is allowed is listed, so no character that a shell, ssh or rsync would interpret gets through.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from labkit.errors import UsageError
from labkit.text import closest, short

SCHEMES = ("ssh", "sky")
EXAMPLES = "ssh://user@host:22 or sky://H100:1"
GPUS = (
    "A10", "A100", "A100-80GB", "A10G", "A40", "B200", "GH200", "H100", "H200", "L4", "L40",
    "L40S", "P100", "RTX3090", "RTX4090", "RTX5090", "RTX6000-Ada", "RTXA4000", "RTXA5000",
    "RTXA6000", "T4", "V100", "V100-32GB",
)  # fmt: skip
"""Names of cards as SkyPilot's catalog spells them."""
CLOUDS = (
    "aws", "azure", "cudo", "do", "fluidstack", "gcp", "hyperbolic", "ibm", "kubernetes", "lambda",
    "nebius", "oci", "paperspace", "primeintellect", "runpod", "scp", "seeweb", "shadeform",
    "vast", "verda", "vsphere", "yotta",
)  # fmt: skip
MOST_GPUS = 16
"""GPUs of one machine; several machines are not rented at once."""

_HOST = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9._-]{0,251}[A-Za-z0-9])?")
_IPV6 = re.compile(r"\[([0-9A-Fa-f:.]{2,45})\]")
_USER = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,63}")
_REGION = re.compile(r"[a-z0-9][a-z0-9-]{0,40}")


@dataclass(frozen=True)
class SSH:
    """A machine that is reached by ssh; what is None is left to ssh's own configuration."""

    host: str
    user: str | None = None
    port: int | None = None

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        user = f"{self.user}@" if self.user else ""
        return f"ssh://{user}{host}{f':{self.port}' if self.port else ''}"


@dataclass(frozen=True)
class Sky:
    """A machine that SkyPilot finds: `count` cards of a kind, on the cheapest cloud or on one."""

    gpu: str
    count: int = 1
    cloud: str | None = None
    region: str | None = None
    spot: bool = False

    def __str__(self) -> str:
        options = {"cloud": self.cloud, "region": self.region, "spot": "true" if self.spot else ""}
        asked = "&".join(f"{name}={value}" for name, value in options.items() if value)
        return f"sky://{self.gpu}:{self.count}{f'?{asked}' if asked else ''}"


Address = SSH | Sky


def parse(text: str) -> Address | None:
    """The rented machine that `device=` names; None for a device of this machine.

    Raises UsageError for another scheme, and for an address that is not spelled as one.
    """
    scheme, separator, rest = text.partition("://")
    if not separator:
        return None
    if scheme == "ssh":
        return _ssh(text, rest)
    if scheme == "sky":
        return _sky(text, rest)
    raise UsageError(
        f"device={short(text)}: unknown scheme {short(scheme)!r}{closest(scheme, SCHEMES)} "
        f"A rented machine is {EXAMPLES}"
    )


def _ssh(text: str, rest: str) -> SSH:
    user, at, place = rest.rpartition("@")
    ipv6 = _IPV6.match(place)
    if ipv6:
        host, port = ipv6[1], place[ipv6.end() :]
        given = port.startswith(":")
        fits = not port or given
        port = port[1:]
    else:
        host, colon, port = place.partition(":")
        given, fits = bool(colon), _HOST.fullmatch(host) is not None
    if at and not _USER.fullmatch(user):
        fits = False
    if not fits:
        raise UsageError(
            f"device={short(text)} is not an address; type ssh://host, ssh://user@host or "
            "ssh://user@host:port, with letters, digits, dots and dashes only"
        )
    if given and not (port.isascii() and port.isdecimal() and 0 < int(port) < 65_536):
        raise UsageError(f"device={short(text)}: the port must be a number from 1 to 65535")
    return SSH(host, user or None, int(port) if given else None)


def _sky(text: str, rest: str) -> Sky:
    cards, asked, options = rest.partition("?")
    name, colon, number = cards.partition(":")
    known = {gpu.lower(): gpu for gpu in GPUS}
    gpu = known.get(name.lower())
    if gpu is None:
        near = closest(name.upper(), GPUS)
        raise UsageError(
            f"device={short(text)}: unknown GPU {short(name)!r}{near} Known: {', '.join(GPUS)}"
        )
    if colon and not (number.isascii() and number.isdecimal() and 0 < int(number) <= MOST_GPUS):
        raise UsageError(
            f"device={short(text)}: the number of GPUs must be from 1 to {MOST_GPUS}; "
            f"type sky://{gpu}:1"
        )
    found: dict[str, str] = {}
    for option in options.split("&") if asked else []:
        key, _, value = option.partition("=")
        found[key] = value
    cloud, region, spot = _options(text, found)
    return Sky(gpu, int(number or 1), cloud, region, spot)


def _options(text: str, found: dict[str, str]) -> tuple[str | None, str | None, bool]:
    """Cloud, region and spot from behind the question mark, checked."""
    allowed = ("cloud", "region", "spot")
    for key in found:
        if key not in allowed:
            raise UsageError(
                f"device={short(text)}: unknown option {short(key)!r}{closest(key, allowed)} "
                "Known: cloud=gcp, region=us-central1, spot=true"
            )
    cloud, region, spot = found.get("cloud"), found.get("region"), found.get("spot", "false")
    if cloud is not None and cloud not in CLOUDS:
        raise UsageError(
            f"device={short(text)}: unknown cloud {short(cloud)!r}{closest(cloud, CLOUDS)} "
            f"Known: {', '.join(CLOUDS)}"
        )
    if region is not None and (cloud is None or not _REGION.fullmatch(region)):
        raise UsageError(
            f"device={short(text)}: region= goes with cloud=, and is a name such as us-central1"
        )
    if spot not in ("true", "false"):
        raise UsageError(f"device={short(text)}: spot must be true or false")
    return cloud, region, spot == "true"


def quoted(word: str) -> str:
    """A command-line word as Hydra reads it: the address of a rented machine in quotation marks.

    Any other word stays as it is. Raises UsageError for an address that `parse` refuses.
    """
    key, _, value = word.partition("=")
    if key.lstrip("+") != "device" or "://" not in value:
        return word
    parse(value)
    return f"{key}='{value}'"
