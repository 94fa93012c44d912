"""Activations for a sparse autoencoder: of a toy model, or of a language model that reads text."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor

from labkit import Run, UsageError
from labkit.data import TextData
from labkit.learning.modes import evaluating
from labkit.show.console import say
from pretraining import GPT, Shape
from pytorch_mastery import one_cycle
from robustness.mechanistic.hooks import run_with_cache
from robustness.mechanistic.patterns import TEST, VALID, generator_at
from robustness.mechanistic.settings import LAB, SAESettings
from robustness.mechanistic.superposition import ToyModels, draw_features, toy_loss

TOY_RATE, TOY_BATCH = 1e-2, 256
"""Learning rate of the toy model, and its examples a step."""
REPRESENTED = 0.5
"""A feature of the toy model is represented when its direction is longer than this."""
SAMPLE = 100_000
"""Characters from which the tokenizer of a random model is made, at size smoke."""
CHARACTERS = 8
"""Characters of text that are encoded for each token asked for: more than tokens have."""
READ = 64
"""Windows of text that the language model reads at once."""


class Source(Protocol):
    """Where activations come from; their mean square over all is 1."""

    width: int
    mean: Tensor
    truth: Tensor | None
    """The true features (F, C), where they are known."""

    def batch(self, count: int, *seed: int) -> Tensor:
        """Activations (count, C), a function of the seed; held-out ones where it begins with VALID
        or TEST.
        """
        ...


class ToySource:
    """Hidden activations of a toy model with more features than dimensions."""

    def __init__(self, settings: SAESettings, seed: int, device: torch.device) -> None:
        """Trains the toy model: `settings.toy_steps` steps. Raises UsageError when that leaves no
        feature represented.
        """
        s = settings
        self.sparsity = torch.tensor([s.sparsity], device=device)
        self.features, self.width, self.device = s.features, s.hidden, device
        self.toy = ToyModels(1, s.features, s.hidden).to(device)
        even = torch.ones(s.features, device=device)
        optimizer = torch.optim.Adam(self.toy.parameters(), TOY_RATE, fused=True)
        for step in range(s.toy_steps):
            optimizer.param_groups[0]["lr"] = one_cycle(step, s.toy_steps, TOY_RATE, rise=0.05)
            draw = generator_at(seed, step, 2, device=device)
            x = draw_features(TOY_BATCH, s.features, self.sparsity, draw)
            loss = toy_loss(self.toy(x), x, even).sum()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        self.toy.requires_grad_(False)
        columns = self.toy.weight[0].T  # (n, m)
        kept = columns.norm(dim=1) > REPRESENTED
        if not bool(kept.any()):
            raise UsageError("the toy model represents no feature; try more sae.toy_steps")
        self.truth: Tensor | None = columns[kept]
        self.scale = 1.0
        self.scale = float(self.batch(4096, seed, 3).square().mean().rsqrt())
        self.mean = self.batch(4096, seed, 3).mean(0)
        say(f"toy model: {int(kept.sum())} of {s.features} features in {s.hidden} dimensions")

    def batch(self, count: int, *seed: int) -> Tensor:
        draw = generator_at(*seed, 4, device=self.device)
        x = draw_features(count, self.features, self.sparsity, draw)
        return self.toy.hidden(x)[:, 0] * self.scale


class Reader(NamedTuple):
    """A language model with texts as windows of tokens, int64 (windows, T)."""

    model: GPT
    train: Tensor
    valid: Tensor
    test: Tensor


class TextSource:
    """A language model's stream after one layer, at every token of a text."""

    truth: Tensor | None = None

    def __init__(self, reader: Reader, layer: int, tokens: int) -> None:
        """Reads at most `tokens` tokens of training text. Raises UsageError for a layer that the
        model does not have.
        """
        layers = reader.model.shape.layers
        if layer >= layers:
            raise UsageError(
                f"sae.layer={layer}: the model has layers 0 to {layers - 1}; "
                f"try sae.layer={layers - 1}"
            )
        self.reader, self.name, self.width = reader, f"blocks.{layer}", reader.model.shape.width
        windows = max(1, tokens // reader.train.shape[1])
        self.kept = self.activations(reader.train[:windows])
        self.scale = float(self.kept.square().mean().rsqrt())
        self.kept *= self.scale
        self.mean = self.kept.mean(0)
        self.held_out = {
            VALID: self.activations(reader.valid) * self.scale,
            TEST: self.activations(reader.test) * self.scale,
        }

    def activations(self, windows: Tensor) -> Tensor:
        """(windows, T) -> (windows T, C), not scaled."""
        model = self.reader.model
        with evaluating(model):
            return torch.cat([
                run_with_cache(model, part, [self.name])[1][self.name].flatten(0, 1)
                for part in windows.to(model.embedding.weight.device).split(READ)
            ])  # fmt: skip

    def batch(self, count: int, *seed: int) -> Tensor:
        pool = self.held_out.get(seed[0], self.kept)
        draw = generator_at(*seed, 4)
        place = torch.randint(len(pool), (count,), generator=draw)
        return pool[place.to(pool.device)]


def reader_of(settings: SAESettings, run: Run) -> Reader:
    """The language model that `sae.source` names, and the text for it.

    At size smoke week 7's is a small random model. Raises UsageError for a folder without a model
    and tokenizer that can be used.
    """
    from transformers import AutoTokenizer  # it and the next take seconds to import

    from pretraining import build_tokenizer, encode, load

    data = run.data(settings.text, TextData)
    folder: Path | None = Path(settings.source)
    if settings.source == LAB:
        folder = run.artifact("pretraining", "wikitext2", "pydoc", "muon")
    if folder is None:
        tokenizer: Any = build_tokenizer("auto", data.name, data.train[:SAMPLE], 300)
        model = GPT(Shape(len(tokenizer), 64, 32, 2, 2), "modern").eval()
    else:
        if not (folder / "config.json").is_file():
            raise UsageError(
                f"sae.source={settings.source} is neither toy nor {LAB} nor a folder with a "
                f"model; type sae.source={LAB} for week 7's"
            )
        try:
            model, tokenizer = load(folder), AutoTokenizer.from_pretrained(folder)
        except ValueError as error:
            raise UsageError(f"sae.source={settings.source}: {error}") from error
    length = model.shape.context
    train, held_out = (
        windows_of(encode(tokenizer, text[: CHARACTERS * (tokens + length)]), length)
        for text, tokens in ((data.train, settings.tokens), (data.valid, 2 * settings.tests))
    )
    half = len(held_out) // 2
    if not half:
        raise UsageError(f"sae.text={settings.text} is too short for a context of {length}")
    most = -(-settings.tests // length)
    return Reader(model.to(run.device), train, held_out[:half][:most], held_out[half:][:most])


def windows_of(tokens: Tensor, length: int) -> Tensor:
    """Windows of a text side by side, (windows, length); what is left at its end is dropped."""
    return tokens[: len(tokens) // length * length].view(-1, length)
