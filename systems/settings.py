"""Settings, apart from the code that needs torch: `--help` reads them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from labkit.config.bounds import Bounds, NonNegativeInt, PositiveFloat, PositiveInt


@dataclass
class QuantizeSettings:
    """How models are quantised."""

    group: NonNegativeInt = 64
    """Columns that share a scale at 4 bits; 0: a whole row."""
    windows: PositiveInt = 128
    """Calibration windows of the training text, each as long as the model's context."""
    damping: PositiveFloat = 0.01
    """GPTQ: share of the Hessian's mean diagonal that is added to the diagonal."""
    act_order: bool = False
    """GPTQ: round the columns with the largest inputs first."""
    threshold: PositiveFloat = 6.0
    """LLM.int8: inputs of this size or more are outliers."""


@dataclass
class EngineSettings:
    """How the engine serves."""

    block_size: PositiveInt = 16
    """Positions in a block of the cache."""
    blocks: PositiveInt = 1024
    """Blocks of the cache, for all requests together."""
    max_tokens: PositiveInt = 512
    """Tokens that are computed in one step, of all requests together; longer prompts are cut."""
    max_sequences: PositiveInt = 64
    """Requests that are computed at once; others wait."""
    share_prefixes: bool = True
    """Let requests that begin alike share the blocks of their beginning."""
    speculate: Annotated[int, Bounds(least=0, most=16)] = 0
    """Tokens that are guessed ahead and checked in one step; 0: none."""


@dataclass
class ServerSettings:
    """Limits of the server."""

    max_open: PositiveInt = 256
    """Answers on their way at once; one more is refused (HTTP 429)."""
    max_body: PositiveInt = 1_000_000
    """Bytes of a request (HTTP 413)."""
    max_tokens: PositiveInt = 64
    """Tokens of an answer where a request does not say."""
    timeout: PositiveFloat = 300.0
    """Seconds that an answer may take (HTTP 504)."""
