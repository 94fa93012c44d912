"""Rows of pictures and text for Flamingo, made from rendered scenes.

A row has several chunks: the picture token, a prompt, an answer. The answers are to be predicted.

    caption     <picture> This is a red circle left of a blue square.
    question    <picture> The colour is red.      or      <picture> The shape is circle.
    few-shot    <picture> It is red. <picture> It is blue. <picture> It is ...

In a few-shot row all answers are colours, or all are shapes, and no word says which. The first
answer can only be guessed. From the second on, the row shows what is asked: this is learning in
context, and every chunk of a row is one shot more.

Letters: B rows, K chunks of a row, T tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from labkit import UsageError
from multimodal.scenes import ALONE, COLOUR_NAMES, SHAPE_NAMES, Scenes, captions_of

Kind = Literal["caption", "question", "few_shot"]
KINDS: tuple[Kind, ...] = ("caption", "question", "few_shot")


class Rows(NamedTuple):
    """B rows as tensors."""

    tokens: Tensor
    """int64 (B, T), padded behind."""
    pictures: Tensor
    """int64 (B, K): which scene is the picture of each chunk."""
    chunk: Tensor
    """int64 (B, T): the chunk whose answer a token belongs to; -1 for all other tokens."""

    @property
    def asked(self) -> Tensor:
        """Which tokens are to be predicted, bool (B, T)."""
        return self.chunk >= 0

    def to(self, device: torch.device) -> Rows:
        return Rows(*(part.to(device) for part in self))


class Episodes:
    """Makes rows from scenes, in the tokens of one language model."""

    def __init__(
        self, scenes: Scenes, tokenizer: Any, picture: int, pad: int, chunks: int, context: int
    ) -> None:
        """Raises UsageError when a row of `chunks` chunks can be longer than the context."""
        self.scenes, self.picture, self.pad, self.chunks = scenes, picture, pad, chunks
        self.single = np.flatnonzero(scenes.relation == ALONE)
        encoded: dict[str, list[int]] = {}

        def tokens_of(text: str) -> list[int]:
            if text not in encoded:
                encoded[text] = tokenizer(text, add_special_tokens=False)["input_ids"]
            return encoded[text]

        self.prompts = {name: tokens_of(f" {name}") for name in
                        ("This is", "The colour is", "The shape is", "It is")}  # fmt: skip
        self.captions = [tokens_of(f" {texts[0]}.") for texts in captions_of(scenes)]
        self.colours = [tokens_of(f" {name}.") for name in COLOUR_NAMES]
        self.shapes = [tokens_of(f" {name}.") for name in SHAPE_NAMES]
        answers = [*self.captions, *self.colours, *self.shapes]
        longest = 1 + max(map(len, self.prompts.values())) + max(map(len, answers))
        if longest * chunks > context:
            raise UsageError(
                f"a row of chunks={chunks} pictures can have {longest * chunks} tokens, and the "
                f"language model takes {context}; try chunks={max(1, context // longest)}"
            )

    def chunk(self, kind: Kind, scene: int, shapes: bool) -> tuple[list[int], list[int]]:
        """Prompt and answer of one chunk. `shapes` asks for the shape, else for the colour."""
        if kind == "caption":
            return self.prompts["This is"], self.captions[scene]
        combination = int(self.scenes.first[scene])
        answer = self.shapes[combination % 8] if shapes else self.colours[combination // 8]
        if kind == "few_shot":
            return self.prompts["It is"], answer
        return self.prompts["The shape is" if shapes else "The colour is"], answer

    def rows(self, kinds: Sequence[Kind], rng: np.random.Generator) -> Rows:
        """A row for each kind, with scenes and questions drawn from `rng`."""
        tokens, chunks, pictures = [], [], []
        for kind in kinds:
            among = len(self.captions) if kind == "caption" else len(self.single)
            drawn = rng.integers(among, size=self.chunks)
            scenes = drawn if kind == "caption" else self.single[drawn]
            asks = rng.random(1 if kind == "few_shot" else self.chunks) < 0.5
            row, owner = [], []
            for place, scene in enumerate(scenes):
                prompt, answer = self.chunk(kind, scene, bool(asks[place % len(asks)]))
                row += [self.picture, *prompt, *answer]
                owner += [-1] * (1 + len(prompt)) + [place] * len(answer)
            tokens.append(row)
            chunks.append(owner)
            pictures.append(scenes)
        longest = max(map(len, tokens))
        return Rows(
            torch.tensor([row + [self.pad] * (longest - len(row)) for row in tokens]),
            torch.from_numpy(np.stack(pictures).astype(np.int64)),
            torch.tensor([row + [-1] * (longest - len(row)) for row in chunks]),
        )

    def batch(self, size: int, step: int, seed: int) -> Rows:
        """Rows of all kinds in turn: a function of (seed, step)."""
        kinds = [KINDS[i % len(KINDS)] for i in range(size)]
        return self.rows(kinds, np.random.default_rng((seed, step, 2)))
