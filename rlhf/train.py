"""Learn from preferences: a reward model, PPO on it, or DPO and its relatives without one.

    python -m rlhf.train +size=tiny                              DPO on generated preferences
    python -m rlhf.train +size=tiny method=ipo                   or kto, simpo, orpo, trl
    python -m rlhf.train +size=tiny +experiment=reward           the reward model, and best-of-n
    python -m rlhf.train +size=tiny method=ppo                   PPO with a KL penalty, by hand
    python -m rlhf.frontier size=tiny                            reward against KL, all in one plot

What a run needs (the supervised start; for PPO the reward model) is trained first if it is missing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from labkit import Run, UsageError, lab
from labkit.config.bounds import Fraction, NonNegativeFloat, PositiveFloat, PositiveInt
from rlhf.settings import MethodConfig


@dataclass
class Config(MethodConfig):
    """Week 16: RLHF and DPO on language."""

    data: str = "hh_harmless"
    """Preferences: hh_harmless (offensive), dpo_demo, polite, or replies (generated, judged)."""
    base: str = "gpt2"
    """Model before its supervised start: new (random), auto (new for replies, else week 7's),
    lab://pretraining/tiny, a folder, or a name on the hub."""
    width: PositiveInt = 96
    """Width of base=new."""
    layers: PositiveInt = 3
    """Layers of base=new."""
    heads: PositiveInt = 4
    """Heads of base=new."""
    context: PositiveInt | None = None
    """Tokens of prompt and answer; the base's own context when left out (32 for base=new)."""
    answer_tokens: PositiveInt | None = None
    """Tokens of an answer, its end included, at most; 3/4 of the context when left out."""
    long_rows: Literal["refuse", "drop"] = "drop"
    """Rows that do not fit into the context: refuse the data, or leave them out."""
    pairs: PositiveInt | None = None
    """Training pairs, at most; all of the set when left out."""
    batch_size: PositiveInt = 64
    """Pairs a step."""
    warmup: Fraction = 0.1
    """Share of the steps over which the learning rate rises."""
    clip: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    weight_decay: NonNegativeFloat = 0.0
    """Decoupled weight decay of AdamW."""
    tests: PositiveInt = 1000
    """Held-out pairs for the metrics, at most."""
    evaluations: PositiveInt = 10
    """Looks at the policy's answers to validation prompts during training."""
    looked_at: PositiveInt = 256
    """Validation pairs, at most, whose prompts are answered at each look."""
    best_of_prompts: PositiveInt = 64
    """Held-out prompts on which method=reward measures best-of-n."""
    texts: bool = False
    """Write answers to prompts of people into samples/answers.txt: hh_harmless's are offensive."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % (2 * self.heads):
            raise UsageError("width must be an even multiple of heads, e.g. width=96 heads=4")
        if self.method == "trl" and self.dpo.smoothing:
            raise UsageError("trl's sigmoid loss ignores dpo.smoothing; type method=dpo")
        if self.method == "trl" and self.weight_decay:
            raise UsageError("method=trl is without weight decay; type weight_decay=0")
        if self.ppo.rollout < self.ppo.minibatches:
            raise UsageError("ppo.rollout must be at least ppo.minibatches")


@lab("rlhf", Config)
def train(cfg: Config, run: Run) -> None:
    """Obtain the start, learn from pairs or from a reward, and look at the answers now and then."""
    import copy

    import numpy as np
    import torch

    from labkit.data import PreferenceData, batch_indices
    from pytorch_mastery import one_cycle
    from rlhf.evaluate import Examiner
    from rlhf.family import Family
    from rlhf.ppo import PPO, Actor
    from rlhf.report import policy_report, reward_report
    from rlhf.reward_model import RewardModel, accuracy_of
    from rlhf.start import optimizers_of, reward_of, set_rates
    from rlhf.task import Limits, prepare

    data = run.data(cfg.data, PreferenceData)
    limits = Limits(cfg.context, cfg.answer_tokens, cfg.long_rows)
    shape = (cfg.width, cfg.layers, cfg.heads)
    started = cfg.method != "sft"
    most = (cfg.pairs, cfg.looked_at, cfg.tests)
    task = prepare(run, data, most, cfg.base, shape, limits, started, cfg.sft, cfg.batch_size)
    examiner = Examiner(data.name, task.reference, task.tokenizer, task.answer)
    policy = copy.deepcopy(task.reference)
    model: Any = policy  # what is trained: a policy, a reward model, or PPO's actor
    pairs = task.train
    if cfg.method in ("reward", "ppo"):
        pairs = pairs[: cfg.reward.pairs]
    if cfg.method == "reward":
        model = RewardModel(task.reference).to(run.device)
    if cfg.method == "ppo":
        model = Actor(policy).to(run.device)
        judge = reward_of(
            run, data, task.reference, task.tokenizer, pairs, cfg.reward, cfg.batch_size
        )
        examiner.reward = judge
    settings, total = cfg.chosen, cfg.total
    optimizers = optimizers_of(model, settings, cfg.weight_decay)
    every = max(1, total // cfg.evaluations)
    validation = [pair.prompt for pair in task.valid]
    looks: dict[str, Any] = {"points": []}

    def rate(step: int) -> float:
        return one_cycle(step, total, 1.0, cfg.warmup)

    def look(step: int) -> None:
        if cfg.method == "reward":
            run.log({"valid/accuracy": accuracy_of(model, task.valid, run.device)}, step)
        else:
            found = examiner.look(policy, validation, cfg.seed)
            looks["points"].append(found)
            run.log({f"valid/{name}": value for name, value in found.items()}, step)

    if cfg.method == "ppo":
        ppo = PPO(
            model, task.reference, judge, optimizers[0], cfg.ppo, task.answer, examiner.end,
            cfg.clip,
        )  # fmt: skip
    else:
        asked = [batch_indices(len(pairs), cfg.batch_size, s, cfg.seed) for s in range(total)]
        needed = torch.tensor(np.unique(asked))
        name = "dpo" if cfg.method == "trl" else cfg.method
        family = Family(name, settings, pairs, task.reference, run.device, needed)
    if cfg.method == "trl":
        from rlhf.library import train_with_trl

        policy = train_with_trl(
            run, policy, task.tokenizer, pairs, family.reference, cfg.dpo, rate, total,
            cfg.batch_size, cfg.clip,
        )  # fmt: skip
    else:
        parts = {f"optimizer{i}": each for i, each in enumerate(optimizers)}
        run.track(model=model, looks=looks, **parts)
        for step in run.steps(total):
            if step % every == 0:
                look(step)
            set_rates(optimizers, rate(step))
            if cfg.method == "ppo":
                generator = torch.Generator(run.device).manual_seed(cfg.seed * 1_000_003 + step)
                index = batch_indices(len(task.train), cfg.ppo.rollout, step, cfg.seed)
                rollout = ppo.collect([task.train[i].prompt for i in index], generator)
                log = ppo.update(rollout, generator)
            else:
                index = batch_indices(len(pairs), cfg.batch_size, step, cfg.seed)
                with run.autocast():
                    loss = family.loss(model, torch.tensor(index).to(run.device))
                model.zero_grad()
                loss.backward()
                torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.clip)
                for optimizer in optimizers:
                    optimizer.step()
                log = {"train/loss": loss}
            run.log({**log, "train/lr": settings.lr * rate(step)}, step)
    run.save()
    look(total)

    run.plot("loss", "train/loss")
    if cfg.method == "reward":
        run.result(reward_report(run, model, examiner, task.test, task.valid, cfg.best_of_prompts))
    else:
        run.result(
            policy_report(run, cfg.method, policy, examiner, task.test, looks["points"], cfg.texts)
        )


if __name__ == "__main__":
    train()
