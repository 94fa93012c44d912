"""What is trained by each method, in a form that one loop can train.

Every batch is a function of (seed, step), so a resumed run needs no state but the modules' and the
optimiser's.
"""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor, nn

from labkit.learning.modes import evaluating
from robustness.mechanistic import induction, sae, superposition
from robustness.mechanistic.model import AttentionOnly
from robustness.mechanistic.patterns import VALID, generator_at, repeated
from robustness.mechanistic.settings import InductionSettings, SAESettings, SuperpositionSettings
from robustness.mechanistic.sources import Source

JUDGED = 20_000
"""Validation examples that choose among the models whose geometry is drawn."""


class Job(Protocol):
    """What the loop of train.py needs."""

    @property
    def model(self) -> nn.Module:
        """What is trained."""
        ...

    def loss(self, step: int) -> Tensor:
        """The loss of this step's batch."""
        ...

    def before_step(self) -> None:
        """Between gradient and step."""
        ...

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        """After the step."""
        ...

    def look(self) -> dict[str, float]:
        """Measures on validation data."""
        ...


class Induction:
    """Next tokens of rows that repeat."""

    def __init__(self, settings: InductionSettings, seed: int, device: torch.device) -> None:
        self.settings, self.seed, self.device = settings, seed, device
        s = settings
        self.model = AttentionOnly(s.vocabulary, s.context, s.width, s.layers, s.heads).to(device)
        self.valid = self.rows(max(1, s.tests // 4), VALID, seed)

    @property
    def periods(self) -> list[int]:
        """Those that are measured. One alone would not do: a head that looks back a fixed distance
        has a high score for that period.
        """
        s = self.settings
        middle = (s.shortest + s.longest) // 2
        return sorted({middle, (middle + s.longest) // 2, s.longest})

    def rows(self, count: int, *seed: int) -> list[tuple[Tensor, int]]:
        """For each of the periods, tokens (count, 2 P) of two whole patterns, and the period."""
        return [
            (repeated(count, 2 * p, self.settings.vocabulary, (p, p), seed)[0].to(self.device), p)
            for p in self.periods
        ]

    def loss(self, step: int) -> Tensor:
        s = self.settings
        tokens, _ = repeated(
            s.batch_size, s.context, s.vocabulary, (s.shortest, s.longest), (self.seed, step)
        )
        tokens = tokens.to(self.device)
        return induction.next_token_losses(self.model(tokens).float(), tokens).mean()

    def before_step(self) -> None:
        pass

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        pass

    def look(self) -> dict[str, float]:
        tokens, period = self.valid[-1]
        with evaluating(self.model):
            scores = induction.scores_of(self.model, self.valid)
            patterns = induction.patterns_of(self.model, tokens)
            losses = induction.next_token_losses(self.model(tokens), tokens)
        first, repeat = induction.first_and_repeat(losses, period)
        previous = induction.previous_token_score(patterns[0]).max()
        return {
            "valid/induction_score": float(scores.max()),
            "valid/previous_token_score": float(previous),
            "valid/first_loss": float(first),
            "valid/repeat_loss": float(repeat),
        }


class Superposition:
    """The toy models of the phase diagram, and those whose geometry is drawn."""

    def __init__(self, settings: SuperpositionSettings, seed: int, device: torch.device) -> None:
        self.settings, self.seed, self.device = settings, seed, device
        s = settings
        side = torch.linspace(0, 1, s.cells)
        densities = s.densest * (s.sparsest / s.densest) ** side
        importances = s.range ** (2 * side - 1)
        self.density = densities[:, None].expand(-1, s.cells).flatten().to(device)  # (cells²,)
        self.importance = importances[None].expand(s.cells, -1).flatten().to(device)
        every = self.importance.repeat_interleave(s.restarts)
        self.weights = torch.stack([torch.ones_like(every), every], dim=1)  # (K, 2)
        self.sparsity = 1 - self.density.repeat_interleave(s.restarts)
        self.shown = 1 - densities.repeat_interleave(s.restarts).to(device)
        self.phase = superposition.ToyModels(len(every), 2, 1)
        self.geometry = superposition.ToyModels(len(self.shown), s.features, s.hidden)
        self.model = nn.ModuleList([self.phase, self.geometry]).to(device)

    def loss(self, step: int) -> Tensor:
        count, draw = self.settings.batch_size, generator_at(self.seed, step, device=self.device)
        x = superposition.draw_features(count, 2, self.sparsity, draw)
        phase = superposition.toy_loss(self.phase(x), x, self.weights)
        # A sum: Adam takes the scale out of each weight's gradient, so the models do not meet.
        return phase.sum() + self.geometry_loss(count, draw).sum()

    def geometry_loss(self, count: int, draw: torch.Generator) -> Tensor:
        """Losses of the models whose geometry is drawn, on `count` new examples."""
        x = superposition.draw_features(count, self.settings.features, self.shown, draw)
        even = torch.ones(self.settings.features, device=self.device)
        return superposition.toy_loss(self.geometry(x), x, even)

    def before_step(self) -> None:
        pass

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        pass

    def best(self) -> Tensor:
        """Indices of the models with the lowest loss in their cell: (cells²,).

        The loss is an integral: in a sample rare features are too few to tell the models apart.
        """
        loss = superposition.expected_loss(self.phase, 1 - self.sparsity, self.weights[:, 1], 16)
        return superposition.best_of(loss, self.settings.restarts)

    def best_drawn(self) -> Tensor:
        """The same of the models whose geometry is drawn, on validation examples: (cells,)."""
        with evaluating(self.model):
            loss = self.geometry_loss(JUDGED, generator_at(VALID, self.seed, device=self.device))
        return superposition.best_of(loss, self.settings.restarts)

    def phases(self) -> tuple[Tensor, Tensor]:
        """Phases of the trained models, and by theory: (cells²,) each."""
        theory = superposition.two_feature_losses(self.density, self.importance).argmin(0)
        return superposition.phase_of(self.phase.weight[self.best()]), theory

    def look(self) -> dict[str, float]:
        trained, theory = self.phases()
        return {"valid/phase_agreement": 100 * float((trained == theory).float().mean())}


class Sparse:
    """A sparse autoencoder of a source's activations."""

    def __init__(
        self, settings: SAESettings, source: Source, seed: int, device: torch.device
    ) -> None:
        s = self.settings = settings
        self.source, self.seed, self.device = source, seed, device
        self.model = sae.SparseAutoencoder(source.width, s.latents, s.kind, s.k).to(device)
        self.model.decoder_bias.data.copy_(source.mean)
        self.first = self.model.decoder.detach().clone()
        self.valid = source.batch(max(1, s.tests // 4), VALID, seed)
        self.parts: dict[str, Tensor] = {}
        self.resampled = 0
        self.x = self.valid

    def loss(self, step: int) -> Tensor:
        s = self.settings
        self.x = self.source.batch(s.batch_size, self.seed, step)
        error, penalty = self.model.losses(self.x)
        self.parts = {"train/error": error.detach(), "train/l1": penalty.detach()}
        if s.kind == "topk":
            return error
        rise = max(1, round(s.rise * s.steps))
        return error + s.l1 * min(1.0, (step + 1) / rise) * penalty

    def before_step(self) -> None:
        if self.settings.project:
            self.model.project()

    def after_step(self, step: int, optimizer: torch.optim.Optimizer) -> None:
        s = self.settings
        self.model.hold_norm()
        every = max(1, round(0.8 * s.steps / (s.resamplings + 1)))
        if (step + 1) % every == 0 and (step + 1) // every <= s.resamplings:
            draw = generator_at(self.seed, step, 1, device=self.device)
            sae.resample(self.model, optimizer, self.x, s.window, draw)

    def look(self) -> dict[str, float]:
        with evaluating(self.model):
            f = self.model.encode(self.valid)
            explained = sae.explained_variance(self.valid, self.model.decode(f))
        dead = (self.model.idle >= self.settings.window).float().mean()
        found = {
            "valid/explained_variance": float(explained),
            "valid/l0": float((f > 0).sum(1).float().mean()),
            "train/dead_share": 100 * float(dead),
        }
        if self.source.truth is not None:
            cosine = sae.mean_max_cosine(self.source.truth, self.model.decoder.detach())
            found["valid/mean_max_cosine"] = float(cosine)
        return found | {key: float(value) for key, value in self.parts.items()}
