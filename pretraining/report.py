"""The evaluations of a run, during training and at the end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from labkit import Run, UsageError
from labkit.data import TextData
from pretraining.evaluate import (
    bits_per_byte,
    future_gap,
    negative_log_likelihood,
    target_offset,
    word_perplexity,
)
from pretraining.huggingface import export
from pretraining.mlm import masked_metrics
from pretraining.model import GPT
from pretraining.sample import generate
from pretraining.tokenizer import END, MASK, special_id


@dataclass(frozen=True)
class Samples:
    """How the samples are drawn; `prompts` as in `encode_prompts`, the rest as in `generate`."""

    prompts: Sequence[str]
    length: int
    temperature: float
    top_k: int | None
    top_p: float | None


def encode_prompts(
    tokenizer: PreTrainedTokenizerFast, prompts: Sequence[str], valid: Tensor, context: int
) -> list[Tensor]:
    """The prompts as tokens (1, T); without any, two passages of the validation text.

    Raises UsageError for an empty prompt, or one that leaves no room in the context.
    """
    if not prompts:
        length = max(1, min(16, context // 4, len(valid) // 2))
        return [valid[start : start + length][None] for start in (0, len(valid) // 2)]
    encoded = []
    for prompt in prompts:
        tokens = tokenizer.encode(prompt, add_special_tokens=False)
        if not 0 < len(tokens) < context:
            raise UsageError(
                f"the prompt {prompt!r} has {len(tokens)} tokens: it must have 1 to "
                f"{context - 1}, so that something can follow in a context of {context}"
            )
        encoded.append(torch.tensor([tokens], device=valid.device))
    return encoded


class Reporter:
    """Evaluates a model during training and at the end."""

    def __init__(
        self, run: Run, model: GPT, tokenizer: PreTrainedTokenizerFast, data: TextData,
        tokens: dict[str, Tensor], samples: Samples, some: int, mask_rate: float,
    ) -> None:  # fmt: skip
        """Args:
            tokens: of each split.
            some: tokens of the validation text in an evaluation during training.
            mask_rate: share of the tokens that are hidden from a model that is not causal.
        Raises UsageError for prompts that do not fit.
        """
        self.run, self.model, self.tokenizer = run, model, tokenizer
        self.data, self.tokens, self.samples = data, tokens, samples
        self.some, self.mask_rate = tokens["valid"][:some], mask_rate
        self.start = special_id(tokenizer, END)
        context = model.shape.context
        self.prompts = encode_prompts(tokenizer, samples.prompts, tokens["valid"], context)

    def look(self, step: int) -> None:
        """Log the loss on some of the validation text, and write samples."""
        if not self.run.is_main:
            return
        if not self.model.causal:
            self.run.log({"valid/loss": self._masked(self.some)["masked_loss"]}, step)
            return
        with self.run.autocast():
            nats = negative_log_likelihood(self.model, self.some, self.start)
        self.run.log({"valid/loss": nats / len(self.some)}, step)
        if not math.isfinite(nats):
            return  # nothing can be drawn; the run is about to end
        folder = self.run.dir / "samples"
        folder.mkdir(exist_ok=True)
        draws = torch.Generator(self.some.device).manual_seed(self.run.seed)  # always the same
        text = "\n----\n".join(self.sample(prompt, draws) for prompt in self.prompts)
        (folder / f"step-{step + 1:06d}.txt").write_text(text + "\n", encoding="utf-8")

    def sample(self, prompt: Tensor, draws: torch.Generator) -> str:
        """A prompt (1, T), a bar, and the model's continuation."""
        how = self.samples
        count = min(how.length, self.model.shape.context - prompt.shape[1])
        new = generate(
            self.model, prompt, count, how.temperature, how.top_k, how.top_p, draws, self.start
        )
        before, after = (self.tokenizer.decode(row[0].tolist()) for row in (prompt, new))
        return f"{before}|{after}"

    def final(self) -> dict[str, float]:
        """Publish the model and return the headline metrics, in float32."""
        self.run.plot("loss", "train/loss", "valid/loss")
        if not self.model.causal:
            return self._masked(self.tokens["valid"])
        self.run.publish(lambda folder: export(self.model, self.tokenizer, folder))
        metrics = self._language("valid", self.data.valid)
        metrics = {"val_loss": metrics.pop("loss"), **metrics}
        metrics["future_gap"] = future_gap(self.model, self.tokens["valid"])
        metrics["target_offset"] = target_offset(self.model, self.tokens["valid"])
        if self.data.test:
            test = self._language("test", self.data.test)
            metrics |= {f"test_{name}": value for name, value in test.items()}
        return metrics

    def _masked(self, tokens: Tensor) -> dict[str, float]:
        """Loss and accuracy on hidden tokens, and those of the unigrams."""
        mask = special_id(self.tokenizer, MASK)
        return masked_metrics(self.model, tokens, self.tokens["train"], mask, self.mask_rate)

    def _language(self, split: str, text: str) -> dict[str, float]:
        """Loss, bits per byte and, for WikiText-2, the word perplexity of a split."""
        tokens = self.tokens[split]
        nats = negative_log_likelihood(self.model, tokens, self.start)
        metrics = {"loss": nats / len(tokens), "bits_per_byte": bits_per_byte(nats, text)}
        if self.data.name == "wikitext2":
            metrics["word_perplexity"] = word_perplexity(nats, text)
        return metrics
