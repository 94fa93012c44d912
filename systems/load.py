"""Load a server and measure it from outside, whichever engine is behind it.

    python -m systems.load url=http://127.0.0.1:8000 rate=4 requests=100
    python -m systems.load url=http://127.0.0.1:8000 clients=64 seconds=300

Open loop (`rate=`): requests come at random times, whether earlier ones are answered or not, as
people do. A slow server then has a growing queue, and the percentiles show it. Closed loop
(`clients=`): each client waits for its answer before it asks again, which hides a queue: the load
falls when the server is slow. It is good for endurance, not for latency.
"""

from __future__ import annotations

import asyncio
import json
import math
import random
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from labkit import UsageError
from labkit.config.words import read_words, real_number, whole_number

USAGE = """\
Load a server that speaks OpenAI's protocol, and measure it.

usage: python -m systems.load url=http://127.0.0.1:8000 [key=value ...]

  rate=4           open loop: requests a second, at random times (Poisson)
  requests=100     how many
  clients=         closed loop instead: so many clients, each asks again when it is answered,
  seconds=30       for so long
  prompt=8         words of a prompt, about; lengths vary from half of it to twice
  max_tokens=32    longest answer
  temperature=1    of the answers
  stop=            a stop string
  timeout=120      seconds until a request counts as failed
  seed=0           of arrival times and prompts
  out=             file for the numbers, JSON
"""
WORDS = (
    "the of and in to a was on as for with by that is at from his it an were which are this had "
    "be has first one their its new after who they two her she been other when time during there "
    "into all may more years over would than only most city three also where"
).split()


@dataclass
class Options:
    """The settings of the command, as text."""

    url: str = "http://127.0.0.1:8000"
    rate: str = "4"
    requests: str = "100"
    clients: str = ""
    seconds: str = "30"
    prompt: str = "8"
    max_tokens: str = "32"
    temperature: str = "1"
    stop: str = ""
    timeout: str = "120"
    seed: str = "0"
    out: str = ""


@dataclass
class Outcome:
    """One request, in seconds."""

    first: float = math.nan
    """From sending to the first piece of text."""
    total: float = math.nan
    gaps: list[float] = field(default_factory=list)
    """Between pieces of text."""
    tokens: int = 0
    failure: str | None = None


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of them do not exceed; NaN without values."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else math.nan


def arrivals(rate: float, count: int, seed: int) -> list[float]:
    """When requests come, in seconds: a Poisson process, gaps are exponential with mean 1/rate."""
    draw, now = random.Random(seed), 0.0
    times = []
    for _ in range(count):
        now += draw.expovariate(rate)
        times.append(now)
    return times


def prompts(count: int, words: int, seed: int) -> list[str]:
    """Prompts of `words`/2 to 2 `words` common words."""
    draw = random.Random(seed)
    lengths = [draw.randint(max(1, words // 2), 2 * words) for _ in range(count)]
    return [" " + " ".join(draw.choices(WORDS, k=n)) for n in lengths]


async def ask(client: Any, body: dict[str, Any]) -> Outcome:
    """Send one request and read its stream to the end."""
    import httpx

    found, begun = Outcome(), time.perf_counter()
    last = begun
    try:
        async with client.stream("POST", "/v1/completions", json=body) as response:
            if response.status_code != 200:
                text = (await response.aread()).decode(errors="replace")
                found.failure = f"HTTP {response.status_code}: {text[:200]}"
                return found
            async for line in response.aiter_lines():
                if not line.startswith("data: ") or line == "data: [DONE]":
                    continue
                piece, now = json.loads(line[6:]), time.perf_counter()
                if "error" in piece:
                    found.failure = str(piece["error"].get("message"))
                    return found
                if piece.get("usage"):
                    found.tokens = piece["usage"]["completion_tokens"]
                if piece["choices"] and piece["choices"][0]["text"]:
                    if math.isnan(found.first):
                        found.first = now - begun
                    else:
                        found.gaps.append(now - last)
                    last = now
        found.total = time.perf_counter() - begun
    except (httpx.HTTPError, OSError, ValueError, KeyError) as error:
        found.failure = f"{type(error).__name__}: {error}"
    return found


def summary(outcomes: Sequence[Outcome], seconds: float) -> dict[str, Any]:
    """What a run of `seconds` gave: rates, percentiles in milliseconds, failures by their words."""
    good = [o for o in outcomes if o.failure is None]
    gaps = [gap for o in good for gap in o.gaps]
    failures: dict[str, int] = {}
    for o in outcomes:
        if o.failure is not None:
            failures[o.failure] = failures.get(o.failure, 0) + 1
    found: dict[str, Any] = {
        "requests": len(outcomes), "failed": len(outcomes) - len(good), "failures": failures,
        "seconds": seconds, "requests_per_second": len(good) / seconds,
        "tokens_per_second": sum(o.tokens for o in good) / seconds,
    }  # fmt: skip
    series = {
        "first_token": [o.first for o in good if not math.isnan(o.first)],
        "between_tokens": gaps,
        "whole_answer": [o.total for o in good],
    }
    for name, values in series.items():
        for share in (50, 95, 99):
            found[f"{name}_p{share}_ms"] = 1000 * percentile(values, share / 100)
    return found


async def measure(options: Options) -> dict[str, Any]:
    """Run the load. Raises UsageError when there is no server."""
    import httpx

    seed = whole_number("seed", options.seed, 0)
    base = {
        "max_tokens": whole_number("max_tokens", options.max_tokens, 1), "stream": True,
        "temperature": real_number("temperature", options.temperature, 0),
        "stream_options": {"include_usage": True},
    }  # fmt: skip
    if options.stop:
        base["stop"] = options.stop
    words = whole_number("prompt", options.prompt, 1)
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
    timeout = real_number("timeout", options.timeout, 0.001)
    async with httpx.AsyncClient(base_url=options.url, timeout=timeout, limits=limits) as client:
        try:
            listed = (await client.get("/v1/models")).json()
            base["model"] = listed["data"][0]["id"]
            before = await memory(client)
        except (httpx.HTTPError, OSError, ValueError, KeyError, TypeError) as error:
            raise UsageError(
                f"url={options.url}: no server answers there ({type(error).__name__}). Start one:\n"
                "    python -m systems.serve folder=lab port=8000"
            ) from error
        begun = time.perf_counter()
        if options.clients:
            count = whole_number("clients", options.clients, 1)
            end = real_number("seconds", options.seconds, 0)
            outcomes = await closed_loop(client, base, count, begun + end, words, seed)
        else:
            rate = real_number("rate", options.rate, 0.001)
            outcomes = await open_loop(
                client, base, rate, whole_number("requests", options.requests, 1), words, seed
            )
        found = summary(outcomes, time.perf_counter() - begun)
        found |= {"memory_mb_before": before, "memory_mb_after": await memory(client)}
    return found


async def memory(client: Any) -> float | None:
    """What the server says of its memory; None where it does not."""
    body = (await client.get("/health")).text
    return json.loads(body).get("memory_mb") if body.startswith("{") else None


async def open_loop(
    client: Any, base: dict[str, Any], rate: float, count: int, words: int, seed: int
) -> list[Outcome]:
    begun = time.perf_counter()

    async def one(at: float, prompt: str, number: int) -> Outcome:
        await asyncio.sleep(max(0.0, begun + at - time.perf_counter()))
        return await ask(client, base | {"prompt": prompt, "seed": seed + number})

    pairs = zip(arrivals(rate, count, seed), prompts(count, words, seed), strict=True)
    return list(await asyncio.gather(*(one(at, p, i) for i, (at, p) in enumerate(pairs))))


async def closed_loop(
    client: Any, base: dict[str, Any], clients: int, end: float, words: int, seed: int
) -> list[Outcome]:
    async def one(number: int) -> list[Outcome]:
        found: list[Outcome] = []
        for i, prompt in enumerate(prompts(10_000, words, seed + number)):
            if time.perf_counter() >= end:
                break
            found.append(await ask(client, base | {"prompt": prompt, "seed": i}))
            if found[-1].failure:
                await asyncio.sleep(0.1)  # a dead server is not to be flooded
        return found

    each = await asyncio.gather(*(one(number) for number in range(clients)))
    return [outcome for found in each for outcome in found]


def main(words: list[str]) -> int:
    """Carry out the command; returns the exit code: 0 all answered, 1 some failed, 2 bad usage."""
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0
    try:
        options = read_words(Options, words, "rate=4")
        found = asyncio.run(measure(options))
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    for key, value in found.items():
        print(f"{key:24} {value:,.1f}" if isinstance(value, float) else f"{key:24} {value}")
    if options.out:
        text = json.dumps({"options": asdict(options), **found}, indent=1)
        Path(options.out).write_text(text + "\n", encoding="utf-8")
    return 1 if found["failed"] else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
