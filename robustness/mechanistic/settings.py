"""Settings of the three methods; `--help` needs them without waiting for torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from labkit import UsageError
from labkit.config.bounds import Bounds, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt

LAB = "lab://pretraining/tiny"
"""The name of week 7's model, as in other weeks."""


@dataclass
class InductionSettings:
    """A transformer of attention alone, trained on rows that repeat."""

    vocabulary: PositiveInt = 512
    """Tokens."""
    context: Annotated[int, Bounds(least=4)] = 256
    """Tokens of a row."""
    shortest: PositiveInt = 8
    """Shortest pattern."""
    longest: PositiveInt = 128
    """Longest pattern; every row has to hold it twice."""
    width: PositiveInt = 256
    """Width of the residual stream."""
    layers: PositiveInt = 2
    """Layers of attention."""
    heads: PositiveInt = 8
    """Heads of each layer."""
    steps: PositiveInt = 20_000
    """Optimiser steps."""
    batch_size: PositiveInt = 64
    """Rows a step."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of AdamW."""
    tests: PositiveInt = 512
    """Rows of the test; validation takes a quarter."""

    def check(self) -> None:
        """Raises UsageError for settings that do not fit each other."""
        from robustness.mechanistic.rows import check_patterns

        check_patterns(self.vocabulary, self.context, self.shortest, self.longest)
        if self.width % self.heads:
            raise UsageError(
                f"induction.width={self.width} must be a multiple of "
                f"induction.heads={self.heads}; try induction.heads=1"
            )


@dataclass
class SuperpositionSettings:
    """Toy models of superposition, a grid of them at once."""

    cells: Annotated[int, Bounds(least=2)] = 40
    """Densities, and relative importances, on each side of the phase diagram."""
    restarts: PositiveInt = 10
    """Models in each cell, of which the one with the lowest loss counts."""
    densest: Annotated[float, Bounds(above=0, most=1)] = 1.0
    """Largest probability that a feature is present."""
    sparsest: Annotated[float, Bounds(above=0, most=1)] = 0.01
    """Smallest one."""
    range: Annotated[float, Bounds(above=1)] = 10.0
    """The second feature is from 1 / range to range times as important as the first."""
    features: Annotated[int, Bounds(least=2)] = 5
    """Features of the models whose geometry is drawn."""
    hidden: PositiveInt = 2
    """Dimensions of those."""
    steps: PositiveInt = 10_000
    """Optimiser steps."""
    batch_size: PositiveInt = 1024
    """Examples a step for each model."""
    lr: PositiveFloat = 1e-2
    """Peak learning rate of AdamW."""

    def check(self) -> None:
        """Raises UsageError for settings that do not fit each other."""
        if self.sparsest >= self.densest:
            raise UsageError(
                f"superposition.sparsest={self.sparsest:g} must be below "
                f"superposition.densest={self.densest:g}; try superposition.sparsest=0.01"
            )


@dataclass
class SAESettings:
    """A sparse autoencoder, of a toy model or of a language model."""

    source: str = LAB
    """What it explains: `toy`, a toy model whose features are known; `lab://pretraining/tiny`, week
    7's GPT-2; or the folder of a GPT-2 or NanoChat."""
    text: str = "wikitext2"
    """Text that the language model reads; `fallback=` where it is not available."""
    layer: Annotated[int, Bounds(least=0)] = 2
    """The stream after this layer of the language model, counted from 0, is explained."""
    tokens: PositiveInt = 2_000_000
    """Activations of the language model that are kept for training."""
    features: PositiveInt = 512
    """Features of the toy model."""
    hidden: PositiveInt = 64
    """Its dimensions."""
    sparsity: Annotated[float, Bounds(least=0, below=1)] = 0.99
    """Probability that a feature of the toy model is absent."""
    toy_steps: PositiveInt = 3000
    """Steps in which the toy model is trained first."""
    latents: PositiveInt = 4096
    """Size of the dictionary."""
    kind: Literal["l1", "topk"] = "topk"
    """What makes the code sparse: a penalty, or keeping the k largest."""
    k: PositiveInt = 32
    """Latents kept of each example, with kind=topk."""
    l1: NonNegativeFloat = 2.0
    """Weight of the penalty at the end of its rise, with kind=l1. Activations are scaled so that
    their mean square is 1."""
    rise: Fraction = 0.1
    """Share of the steps in which the penalty rises from 0."""
    project: bool = True
    """Take from the decoder's gradient what would only change the norm of its directions."""
    window: PositiveInt = 50_000
    """Examples after which a silent latent counts as dead."""
    resamplings: Annotated[int, Bounds(least=0)] = 4
    """Times that dead latents start anew, evenly spaced over the first 80 % of the steps."""
    steps: PositiveInt = 30_000
    """Optimiser steps."""
    batch_size: PositiveInt = 4096
    """Activations a step."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of Adam."""
    tests: PositiveInt = 100_000
    """Activations of the test."""

    def check(self) -> None:
        """Raises UsageError for settings that do not fit each other."""
        if self.kind == "topk" and self.k > self.latents:
            raise UsageError(
                f"sae.k={self.k} is more than the sae.latents={self.latents}; "
                f"try sae.k={self.latents}"
            )
