"""Learn from comparisons that people made (HH-RLHF), and ask what XSTest asks.

    python -m ai_safety.people.train +size=tiny                     a policy, by DPO
    python -m ai_safety.people.train +size=tiny method=reward       a reward model
    python -m ai_safety.people.train +size=tiny more=[FILE]         with further comparisons, e.g.
                                                                    HH-RLHF's helpful-base
    python -m ai_safety.people.train                                GPT-2: needs a GPU

Stages: imitation of the preferred answers (week 8's step); then DPO, or a reward model by Bradley
and Terry.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

from ai_safety.people.settings import DPOSettings, ImitationSettings, RewardSettings
from ai_safety.settings import stage_at
from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass
class Config(LabConfig):
    """Week 21: helpful and harmless by people's comparisons."""

    data: str = "hh_harmless"
    """Comparisons: hh_harmless (offensive), or another set of preferences."""
    more: list[str] = field(default_factory=list)
    """Files with further comparisons in HH-RLHF's format, e.g. helpful-base/train.jsonl.gz."""
    base: str = "gpt2"
    """The model at first: lab://pretraining/tiny (week 7's), a folder, or a name on the hub."""
    method: Literal["dpo", "reward"] = "dpo"
    """What the comparisons are for: a policy by DPO, or a reward model."""
    context: PositiveInt = 512
    """Tokens of dialogue and answer; of a longer dialogue the first turns are left out."""
    answer_tokens: PositiveInt = 128
    """Tokens of an answer, its end included, at most; rows with a longer one are left out."""
    batch_size: PositiveInt = 32
    """Comparisons a step."""
    start: ImitationSettings = field(default_factory=ImitationSettings)
    """Imitation of the preferred answers."""
    dpo: DPOSettings = field(default_factory=DPOSettings)
    """Settings of method=dpo."""
    reward: RewardSettings = field(default_factory=RewardSettings)
    """Settings of method=reward."""
    weight_decay: NonNegativeFloat = 0.1
    """Decoupled weight decay of both stages."""
    clip: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    tests: PositiveInt = 2000
    """Held-out comparisons of each source, at most."""
    evaluations: PositiveInt = 5
    """Looks at validation comparisons in the second stage."""
    looked_at: PositiveInt = 300
    """Validation comparisons, at most."""
    texts: bool = False
    """Write samples/answers.txt, answers to held-out dialogues: hh_harmless's are offensive."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.answer_tokens >= self.context:
            raise UsageError(
                f"answer_tokens={self.answer_tokens} leaves no room for a question in "
                f"context={self.context}; type answer_tokens={max(1, self.context // 2)}"
            )

    @property
    def stages(self) -> dict[str, int]:
        """The steps of each stage, in their order."""
        return {name: getattr(self, name).steps for name in ("start", self.method)}


@lab("ai_safety.people", Config)
def train(cfg: Config, run: Run) -> None:
    """Both stages in one loop, with looks at validation comparisons in the second."""
    import copy
    from typing import Any

    import torch

    from ai_safety.learn import pair_loss, reference_logps
    from ai_safety.people.comparisons import with_files
    from ai_safety.people.pairs import Sources, imitation_loss, rewarded
    from ai_safety.people.report import margins, report
    from ai_safety.people.start import base_of
    from labkit.data import PreferenceData, batch_indices, check_batch_size
    from pytorch_mastery import one_cycle
    from rlhf import RewardModel, bradley_terry_loss, optimizers_of, set_rates

    data = run.data(cfg.data, PreferenceData)
    splits = with_files(data, cfg.more)
    model, tokenizer = base_of(cfg.base, run, [row.chosen for row in data.train])
    sources = Sources.encoded(splits, tokenizer, model, cfg)
    check_batch_size(len(sources.train.pairs), cfg.batch_size)
    rows = sources.table(run.device)
    start = copy.deepcopy(model).requires_grad_(False)  # filled when the first stage is over
    judge = RewardModel(model).to(run.device) if cfg.method == "reward" else None
    learners: dict[str, Any] = {"start": model, cfg.method: judge or model}
    optimizers = {
        name: optimizers_of(learners[name], getattr(cfg, name), cfg.weight_decay)
        for name in cfg.stages
    }
    kept: dict[str, Any] = {}  # DPO's reference, for a resumed run
    models = {"model": model, "first": start} | ({"judge": judge} if judge else {})
    run.track(kept=kept, **models, **{
        f"{name}{i}": each for name, some in optimizers.items() for i, each in enumerate(some)
    })  # fmt: skip

    for step in run.steps(sum(cfg.stages.values())):
        stage = stage_at(step, cfg.stages)
        learner = learners[stage.name]
        if stage.name != "start" and "reference" not in kept:  # the second stage begins
            start.load_state_dict(model.state_dict())
            if judge is None:
                kept["reference"] = reference_logps(start, rows, run.device)
            else:
                judge.trunk.load_state_dict(model.state_dict())
                kept["reference"] = None
        factor = one_cycle(stage.step, stage.steps, 1.0, 0.1)
        set_rates(optimizers[stage.name], factor)
        index = torch.tensor(batch_indices(len(rows.mask), cfg.batch_size, step, cfg.seed))
        with run.autocast():
            if stage.name == "start":
                loss = imitation_loss(model, rows, index)
            elif judge is None:
                loss = pair_loss(model, rows, kept["reference"], index, cfg.dpo.beta, run.device)
            else:
                loss = bradley_terry_loss(*rewarded(judge, rows, index).unbind(1))
        learner.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(learner.parameters(), cfg.clip)
        for optimizer in optimizers[stage.name]:
            optimizer.step()
        if stage.name != "start" and (stage.step + 1) % -(-stage.steps // cfg.evaluations) == 0:
            found = margins(model, judge, start, sources.valid.pairs, run.device)
            run.log({"valid/accuracy": found.percent}, step)
        if step % cfg.log_every == 0 or stage.step in (0, stage.steps - 1):
            rate = getattr(cfg, stage.name).lr * factor
            run.log({f"train/{stage.name}_loss": loss.detach(), "train/lr": rate}, step)
    run.save()

    run.plot("loss", *(f"train/{name}_loss" for name in cfg.stages))
    run.plot("accuracy", "valid/accuracy")
    run.result(report(run, model, judge, start, tokenizer, sources, cfg.answer_tokens, cfg.texts))


if __name__ == "__main__":
    train()
