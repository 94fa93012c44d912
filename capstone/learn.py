"""The two stages that train: instruction tuning on a mixture, and DPO.

Both are sessions (see stages.py): what they need is read from folders, a batch is a function of
seed and step, and model and optimisers are all of their state.

Letters: P pairs, N rows, T tokens.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from capstone import mixture
from capstone.settings import AlignSettings, TuneSettings
from labkit.data import batch_indices
from labkit.learning.modes import evaluating
from labkit.learning.muon import Muon, others
from pretraining import GPT, Shape, export
from pytorch_mastery import one_cycle
from rlhf import Rows, cdpo_loss, token_logps

BATCH = 64
CLIP = 1.0
GROUPS = 4
"""Groups of chats in a step."""
RISE = 0.1
"""Share of the steps in which the learning rate rises."""


@dataclass(frozen=True)
class Place:
    """Where and how a session computes."""

    device: torch.device
    autocast: Callable[[], contextlib.AbstractContextManager[Any]]
    seed: int
    precision: str = "fp32"


def extended(model: GPT, context: int) -> GPT:
    """The model with room for `context` tokens; new positions begin as copies of the last one.

    Traces of tools are longer than what week 7's model has read. The tuning teaches the rest.
    """
    if context <= model.shape.context:
        return model
    shape = model.shape
    longer = GPT(Shape(shape.vocabulary, context, shape.width, shape.layers, shape.heads))
    state = model.state_dict()
    known = state["positions.weight"]
    last = known[-1:].expand(context - len(known), -1)
    state["positions.weight"] = torch.cat([known, last])
    longer.load_state_dict(state)
    return longer.to(known.device)


class Optimizers:
    """Muon for the matrices of the layers, AdamW for the rest; one schedule for both."""

    def __init__(self, model: GPT, lr: float, muon_lr: float, steps: int, precision: str) -> None:
        matrices = [p for p in model.blocks.parameters() if p.dim() == 2]
        rest = others(model, matrices)
        names: dict[str, Any] = {"weight_decay": 0.0}
        self.adamw = torch.optim.AdamW(rest, lr, (0.9, 0.99), fused=True, **names)
        self.muon = Muon(
            matrices, muon_lr, adjust_lr_fn="match_rms_adamw", precision=precision, **names
        )
        self.model, self.steps = model, steps

    def step(self, loss: Tensor, number: int) -> float:
        """One step of both; the rate as a share of its peak."""
        rate = one_cycle(number, self.steps, 1.0, max(RISE, 2 / self.steps))
        self.model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), CLIP)
        for optimizer in (self.adamw, self.muon):
            for group in optimizer.param_groups:
                group["lr"] = rate * optimizer.defaults["lr"]
            optimizer.step()
        return rate


def answer_loss(model: GPT, groups: Sequence[Rows]) -> Tensor:
    """Mean negative log-likelihood of the learned tokens of groups of rows (N, T), in nats."""
    total = torch.stack([token_logps(model, rows).sum() for rows in groups]).sum()
    return -total / torch.stack([rows.mask.sum() for rows in groups]).sum()


def held_out_loss(model: GPT, chats: Sequence[mixture.Parts], place: Place) -> float:
    """The same over all chats, in batches, without gradients."""
    total = count = 0.0
    ordered = sorted(chats, key=mixture.length_of)
    with evaluating(model):
        for start in range(0, len(ordered), BATCH):
            rows = moved(mixture.collate(ordered[start : start + BATCH]), place.device)
            total -= token_logps(model, rows).double().sum().item()
            count += rows.mask.sum().item()
    return total / count


def moved(rows: Rows, device: torch.device) -> Rows:
    """Rows on a device."""
    return Rows(rows.tokens.to(device), rows.mask.to(device))


class Lessons:
    """The mixture in memory, in groups of equal cost; a step takes several of them.

    Chats of a group have the same length, and so mostly the same kind. With one group, each step
    would learn one kind, and undo the last one.
    """

    def __init__(self, chats: Sequence[mixture.Parts], tokens: int, place: Place) -> None:
        lengths = [mixture.length_of(chat) for chat in chats]
        groups = mixture.budgeted(lengths, max(*lengths, tokens // GROUPS))
        self.groups = [
            moved(mixture.collate([chats[i] for i in group]), place.device) for group in groups
        ]
        self.seed = place.seed

    def __getitem__(self, step: int) -> list[Rows]:
        count = min(GROUPS, len(self.groups))
        return [self.groups[i] for i in batch_indices(len(self.groups), count, step, self.seed)]


class Tune:
    """Instruction tuning."""

    def __init__(
        self, model: GPT, tokenizer: Any, train: Sequence[mixture.Parts],
        valid: Sequence[mixture.Parts], settings: TuneSettings, place: Place,
    ) -> None:  # fmt: skip
        self.model, self.tokenizer, self.place = model.train(), tokenizer, place
        self.lessons, self.valid = Lessons(train, settings.tokens, place), valid
        self.steps = settings.steps
        self.optimizers = Optimizers(
            model, settings.lr, settings.muon_lr, settings.steps, place.precision
        )

    @property
    def tracked(self) -> dict[str, Any]:
        return {
            "model": self.model, "adamw": self.optimizers.adamw, "muon": self.optimizers.muon
        }  # fmt: skip

    def step(self, number: int) -> dict[str, Any]:
        with self.place.autocast():
            loss = answer_loss(self.model, self.lessons[number])
        rate = self.optimizers.step(loss, number)
        return {"loss": loss.detach(), "rate": rate} if number % 10 == 0 else {}

    def finish(self, folder: Path) -> dict[str, float]:
        export(self.model.eval(), self.tokenizer, folder)
        return {"val_loss": held_out_loss(self.model, self.valid, self.place)}


def pair_rows(
    good: Sequence[mixture.Parts], bad: Sequence[mixture.Parts], device: torch.device
) -> Rows:
    """Preferred and other answers as rows (P, 2, T)."""
    both = [chat for pair in zip(good, bad, strict=True) for chat in pair]
    rows = moved(mixture.collate(both), device)
    return Rows(*(part.unflatten(0, (-1, 2)) for part in rows))


class Align(Tune):
    """DPO on pairs, with the loss of the good answers (Pang et al. 2024, *Iterative Reasoning
    Preference Optimization*, equation 2) and a part of the mixture beside it."""

    def __init__(
        self, model: GPT, tokenizer: Any, train: Sequence[mixture.Parts],
        valid: Sequence[mixture.Parts], pairs: Rows, settings: AlignSettings, place: Place,
    ) -> None:  # fmt: skip
        longest = max(mixture.length_of(chat) for chat in train)
        tokens = max(longest, pairs.tokens[: settings.pairs].numel())
        tuning = TuneSettings(settings.steps, tokens, settings.lr, settings.muon_lr)
        super().__init__(model, tokenizer, train, valid, tuning, place)
        self.pairs, self.settings = pairs, settings
        with evaluating(model):
            parts = zip(pairs.tokens.split(BATCH), pairs.mask.split(BATCH), strict=True)
            self.reference = torch.cat([summed(model, Rows(*part)) for part in parts])  # (P, 2)

    def step(self, number: int) -> dict[str, Any]:
        count = min(self.settings.pairs, len(self.pairs.mask))
        index = batch_indices(len(self.pairs.mask), count, number, self.place.seed)
        chosen = torch.from_numpy(index).to(self.place.device)
        rows = Rows(self.pairs.tokens[chosen], self.pairs.mask[chosen])
        before = self.reference[chosen]
        with self.place.autocast():
            now = summed(self.model, rows)
            loss = cdpo_loss(
                now[:, 0], now[:, 1], before[:, 0], before[:, 1], self.settings.beta,
                self.settings.smoothing,
            )  # fmt: skip
            chosen = -now[:, 0].sum() / rows.mask[:, 0].sum()
            anchor = loss.new_zeros(())
            if self.settings.anchor:
                anchor = answer_loss(self.model, self.lessons[number])
        margin = ((now - before) @ now.new_tensor([1.0, -1.0])).detach()
        beside = self.settings.anchor * anchor + self.settings.chosen * chosen
        self.optimizers.step(loss + beside, number)
        if number % 5:
            return {}
        right = 100 * (margin > 0).float().mean()
        return {
            "loss": loss.detach(), "chosen": chosen.detach(), "anchor": anchor.detach(),
            "accuracy": right,
        }  # fmt: skip


def summed(model: GPT, rows: Rows) -> Tensor:
    """Log-probability of each answer of rows (P, 2, T): (P, 2)."""
    flat = Rows(*(part.flatten(0, 1) for part in rows))
    return token_logps(model, flat).sum(dim=1).view(-1, 2)
