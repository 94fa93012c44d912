"""Teach a small GPT to add, by rewards for right answers alone (GRPO).

    python -m rlhf.verifiable.train +size=tiny                     GRPO, as in DeepSeekMath
    python -m rlhf.verifiable.train +size=tiny +experiment=dapo    or dr_grpo: the corrections
    python -m rlhf.verifiable.train +size=tiny +experiment=trl     the same by trl's GRPOTrainer

A short supervised start comes first, see start.py. Then the model answers each question several
times, a programme says which answers are right, and each answer is compared with its group.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import PositiveInt
from rlhf.verifiable.settings import GRPOSettings, StartSettings


@dataclass
class Config(LabConfig):
    """Week 16: rewards from a programme."""

    data: Literal["addition"] = "addition"
    """Sums of two numbers, made by the week itself."""
    method: Literal["grpo", "trl"] = "grpo"
    """GRPO by hand, or by trl's GRPOTrainer, from the same start."""
    judge: str = "strict"
    """The programme that gives rewards: strict, or module:function of your own."""
    digits: PositiveInt = 3
    """Digits of each number."""
    order: Literal["units_first", "plain"] = "plain"
    """How the sum is written: from its units on, or as people do."""
    longest: PositiveInt = 8
    """Tokens that an answer has room for, END included."""
    width: PositiveInt = 256
    """Width of the GPT."""
    layers: PositiveInt = 4
    """Its layers."""
    heads: PositiveInt = 4
    """Its attention heads."""
    steps: PositiveInt = 2000
    """Steps of GRPO: in each, new answers are drawn."""
    evaluations: PositiveInt = 20
    """Looks at the validation accuracy during training, evenly spaced."""
    start: StartSettings = field(default_factory=StartSettings)
    """The supervised start."""
    grpo: GRPOSettings = field(default_factory=GRPOSettings)
    """GRPO."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.grpo.check()
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise UsageError(
                f"width={self.width} must be an even multiple of heads={self.heads}; try heads=2"
            )
        if self.digits > 6:
            raise UsageError(f"digits={self.digits}: all sums are listed, so at most 6 digits")
        if self.method == "trl" and (self.grpo.iterations > 1 or self.grpo.dynamic):
            raise UsageError(
                "method=trl draws new answers for every update and has no dynamic sampling; type "
                "grpo.iterations=1 grpo.dynamic=false"
            )
        if self.method == "trl" and self.grpo.beta > 0:
            raise UsageError(
                "trl opens the reference of its KL penalty by name, and this model has none yet; "
                "type grpo.beta=0, or method=grpo"
            )


@lab("rlhf.verifiable", Config)
def train(cfg: Config, run: Run) -> None:
    """Ask, judge, compare inside each group, learn."""
    import copy

    import torch

    from labkit.data import check_batch_size
    from labkit.show.console import say
    from rlhf.verifiable import grpo
    from rlhf.verifiable.arithmetic import SPLITS, Addition, find_judge
    from rlhf.verifiable.evaluate import LOOKED_AT, accuracy
    from rlhf.verifiable.report import report
    from rlhf.verifiable.rollout import Collector, largest_gap, token_logps
    from rlhf.verifiable.start import make_model, supervised_start
    from rlhf.verifiable.weights import save

    task = Addition(cfg.digits, cfg.order, cfg.longest)
    judge = find_judge(cfg.judge, cfg.order)
    sums = {split: task.pairs(split) for split in SPLITS}
    check_batch_size(len(sums["train"]), cfg.grpo.prompts, "grpo.prompts")
    run.generated(cfg.data, {split: len(found) for split, found in sums.items()}, task.digest())
    model = make_model(task, cfg.width, cfg.layers, cfg.heads, run.device)
    start = supervised_start(model, task, cfg.start, cfg.seed, run.autocast)
    say(f"supervised start: {start.steps} steps, {start.accuracy:.0%} of the validation sums right")
    first = copy.deepcopy(model).requires_grad_(False)
    optimizer = torch.optim.AdamW(
        model.parameters(), cfg.grpo.lr, betas=(0.9, 0.99), weight_decay=0.0, fused=True
    )
    collector = Collector(task, judge, cfg.grpo, sums["train"], cfg.seed)

    if cfg.method == "trl":
        from rlhf.verifiable.library import train_with_trl

        train_with_trl(run, model, task, judge, cfg.grpo, sums["train"], cfg.steps)
    else:
        run.track(model=model, optimizer=optimizer, tokens=collector.tokens)
        every = max(1, cfg.steps // cfg.evaluations)
        for step in run.steps(cfg.steps):
            look = step % every == 0 or step == cfg.steps - 1
            optimizer.param_groups[0]["lr"] = cfg.grpo.lr * (1 - step / cfg.steps)
            with run.autocast():
                batch, reward = collector.collect(model, step)
                reference = None
                if cfg.grpo.beta > 0 and len(batch.answer):
                    reference = token_logps(first, batch.prompt, batch.answer, cfg.grpo.group)
            logged: dict[str, Any] = {"train/reward": reward.mean()}
            logged["train/lr"] = optimizer.param_groups[0]["lr"]
            logged["train/informative"] = grpo.informative(reward).float().mean()
            for update in range(cfg.grpo.iterations if len(batch.answer) else 0):
                with run.autocast():
                    logps = token_logps(model, batch.prompt, batch.answer, cfg.grpo.group)
                loss = grpo.grpo_loss(logps, batch, cfg.grpo, reference)
                optimizer.zero_grad()
                loss.backward()
                norm = torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.grpo.max_norm)
                optimizer.step()
                if update == 0:  # the model is still the sampler
                    logged |= {"train/loss": loss.detach(), "train/grad_norm": norm}
                    logged["train/sampler_gap"] = largest_gap(logps, batch)
                else:
                    logged["train/clipped"] = grpo.clipped_share(logps, batch, cfg.grpo)
            if step == 0 and "train/loss" in logged:
                say(
                    f"the first loss is {logged['train/loss'].item():.1e}, since advantages cancel "
                    "inside a group while every ratio is 1; its gradient has norm "
                    f"{logged['train/grad_norm'].item():.2g}"
                )
            if look:
                with run.autocast():
                    logged["valid/accuracy"] = 100 * accuracy(
                        model, task, sums["valid"][:LOOKED_AT]
                    )
            run.log(logged, step)
    run.save()

    run.publish(lambda folder: save(folder, first, model))
    run.note(start_steps=start.steps, tokens=collector.tokens)
    run.result(report(run, first, model, task, judge, sums["test"], start))


if __name__ == "__main__":
    train()
