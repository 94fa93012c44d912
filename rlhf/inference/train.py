"""Spend computation when answering instead of in training: votes, a verifier, a tree search.

    python -m rlhf.inference.train +size=tiny

The model is the one that rlhf.verifiable starts GRPO from: it adds rightly now and then. It draws
many answers to each question; they are chosen among by vote, or by a verifier that is trained here,
or the verifier guides a search. Beside that, the same model is simply trained further, so that both
ways to spend computation stand in one plot (Snell et al. 2024 ask the same of language models).
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, PositiveFloat, PositiveInt
from rlhf.verifiable.settings import StartSettings


@dataclass
class Config(LabConfig):
    """Week 16: inference-time scaling."""

    data: Literal["addition"] = "addition"
    """Sums of two numbers, as in rlhf.verifiable."""
    base: str = "lab"
    """The model that answers: lab is what rlhf.verifiable published, before GRPO; or a folder."""
    base_size: str = "tiny"
    """Size of the run of rlhf.verifiable for base=lab."""
    digits: PositiveInt = 2
    """Digits of each number, as the model was trained with."""
    order: Literal["units_first", "plain"] = "units_first"
    """How the sum is written, as the model was trained with."""
    longest: PositiveInt = 6
    """Tokens that an answer has room for, END included."""
    samples: Annotated[int, Bounds(least=2)] = 64
    """Answers drawn to each test question."""
    questions: PositiveInt = 800
    """Test questions (at most as many as there are)."""
    budgets: list[PositiveInt] = field(default_factory=lambda: [1, 2, 4, 8])
    """Tree search: beams that are kept, and as many continuations of each."""
    draws: PositiveInt = 8
    """Answers drawn to each training question, for the verifier."""
    steps: PositiveInt = 2000
    """Steps: the verifier takes one, and so does the model that is trained further."""
    batch_size: PositiveInt = 512
    """Answers in a step of the verifier."""
    lr: PositiveFloat = 1e-2
    """Learning rate of the verifier's embedding and head, by AdamW."""
    muon_lr: PositiveFloat = 2e-2
    """Learning rate of the verifier's layers, by Muon."""
    looks: PositiveInt = 20
    """Measurements of the further training, evenly spaced."""
    start: StartSettings = field(default_factory=StartSettings)
    """Further training; at size smoke also the supervised start."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.budgets or max(self.budgets) > 12:
            raise UsageError(
                f"budgets={self.budgets} must name numbers of beams from 1 to 12 (an answer has no "
                "more different characters), e.g. budgets=[1,4]"
            )


@lab("rlhf.inference", Config)
def train(cfg: Config, run: Run) -> None:
    """A step for the verifier and a step of further training; then every way to answer."""
    import copy
    from pathlib import Path

    import torch

    from labkit.data import batch_indices
    from labkit.learning.muon import Muon
    from rlhf.inference.measure import (
        draw_answers,
        greedy_point,
        sampling_points,
        search_points,
    )
    from rlhf.inference.report import report
    from rlhf.inference.verifier import Verifier, right_so_far, verifier_loss
    from rlhf.verifiable.arithmetic import END, SPLITS, Addition
    from rlhf.verifiable.compute import training_flops
    from rlhf.verifiable.evaluate import accuracy, sampled
    from rlhf.verifiable.grpo import answer_mask
    from rlhf.verifiable.start import Supervised, make_model, supervised_start
    from rlhf.verifiable.weights import START, open_model

    task = Addition(cfg.digits, cfg.order, cfg.longest)
    sums = {split: task.pairs(split) for split in SPLITS}
    run.generated(cfg.data, {split: len(found) for split, found in sums.items()}, task.digest())
    if cfg.base == "lab":
        published = run.artifact("rlhf.verifiable", cfg.data, size=cfg.base_size)
        folder = None if published is None else published / START
    else:
        folder = Path(cfg.base)
    if folder is None:  # size smoke makes its own
        model = make_model(task, 32, 2, 2, run.device)
        supervised_start(model, task, cfg.start, cfg.seed, run.autocast)
    else:
        model = open_model(folder, task.context).to(run.device)
    model.requires_grad_(False)

    answer, _ = sampled(model, task, sums["train"], cfg.draws)
    each = sums["train"].repeat(cfg.draws, axis=0)
    answer = answer.flatten(0, 1).to(run.device)
    marks = right_so_far(answer, torch.from_numpy(task.answers(each)).to(run.device))
    prompt = torch.from_numpy(task.prompts(each)).to(run.device)
    mask = answer_mask(answer, END)

    verifier = Verifier(copy.deepcopy(model).requires_grad_(True)).to(run.device)
    matrices = list(verifier.trunk.blocks.parameters())
    muon = Muon(matrices, cfg.muon_lr, precision="fp32", weight_decay=0.0)
    rest = [verifier.trunk.embedding.weight, *verifier.head.parameters()]
    adamw = torch.optim.AdamW(rest, cfg.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True)
    trained = copy.deepcopy(model).requires_grad_(True)
    further = Supervised(trained, task, cfg.start, cfg.seed + 1, run.autocast)
    asked = sums["test"][: cfg.questions]  # nothing is chosen by them
    tokens: dict[str, int] = {"trained": 0, "verified": 0}
    curve: dict[str, list[float]] = {"flops": [0.0]}
    curve["accuracy"] = [100 * accuracy(model, task, asked)]
    run.track(
        verifier=verifier, muon=muon, adamw=adamw, trained=trained, further_muon=further.muon,
        further_adamw=further.adamw, tokens=tokens, curve=curve,
    )  # fmt: skip
    batch_size, every = min(cfg.batch_size, len(prompt)), max(1, cfg.steps // cfg.looks)
    for step in run.steps(cfg.steps):
        index = torch.from_numpy(batch_indices(len(prompt), batch_size, step, cfg.seed))
        index = index.to(run.device)
        with run.autocast():
            logits = verifier(prompt[index], answer[index])
        loss = verifier_loss(logits, mask[index], marks[index])
        verifier.zero_grad()
        loss.backward()
        muon.step()
        adamw.step()
        further_loss, read = further.step(step)
        tokens["trained"] += read
        tokens["verified"] += int(mask[index].sum()) + prompt.shape[1] * len(index)
        logged: dict[str, Any] = {"train/verifier_loss": loss.detach(), "train/loss": further_loss}
        if (step + 1) % every == 0 or step == cfg.steps - 1:
            reached = 100 * accuracy(trained, task, asked)
            curve["flops"].append(training_flops(trained, tokens["trained"]))
            curve["accuracy"].append(reached)
            logged["test/accuracy"] = reached
        run.log(logged, step)
    run.save()

    drawn = draw_answers(model, verifier, task, asked, cfg.samples)
    points = [
        greedy_point(model, task, asked),
        *sampling_points(drawn, model, verifier, task.prompt_length),
        *search_points(model, verifier, task, asked, cfg.budgets),
    ]
    run.plot("training", "train/verifier_loss", "train/loss")
    pairs = list(zip(curve["flops"], curve["accuracy"], strict=True))
    run.result(report(run, points, pairs, 6.0 * verifier.weights() * tokens["verified"]))


if __name__ == "__main__":
    train()
