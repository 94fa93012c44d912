"""Tune a small language model to be helpful and harmless, and measure both.

    python -m ai_safety.train +size=tiny                        by a written constitution
    python -m ai_safety.train +size=tiny method=rlhf            by people's labels
    python -m ai_safety.train +size=tiny method=start           not tuned: it helps with everything
    python -m ai_safety.train +size=tiny constitution=my.yaml   by principles of your own
    python -m ai_safety.train +size=tiny attacks=[role_play]    safety data with attacks in them

Stages: a supervised start that helps with everything; imitation of revised answers, or of people's;
preferences, the model's own (or people's), by week 16's DPO.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from ai_safety.settings import DPOSettings, StartSettings, TuneSettings, stage_at
from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, Fraction, NonNegativeFloat, PositiveFloat, PositiveInt


@dataclass
class Config(LabConfig):
    """Week 21: helpful and harmless."""

    data: Literal["dialogues"] = "dialogues"
    """Requests and answers of a small world, made by the week itself."""
    method: Literal["constitutional", "rlhf", "start"] = "constitutional"
    """Who teaches: a constitution and the model itself, people, or nobody (the start alone)."""
    constitution: str = "own"
    """Principles of method=constitutional: the week's own, or a file of yours."""
    harmless_share: Fraction = 0.5
    """Share of harmless requests in the safety data."""
    label_noise: Annotated[float, Bounds(least=0, below=0.5)] = 0.05
    """method=rlhf: share of people's labels that are wrong."""
    attacks: list[str] = field(default_factory=list)
    """Attacks that half of the safety data take the form of: role_play, suppression, prefix,
    reversed."""
    width: PositiveInt = 256
    """Width of the model."""
    layers: PositiveInt = 6
    """Its layers."""
    heads: PositiveInt = 4
    """Its attention heads."""
    context: PositiveInt = 128
    """Tokens that it reads and writes."""
    batch_size: PositiveInt = 64
    """Lessons a step, or pairs."""
    start: StartSettings = field(default_factory=StartSettings)
    """The supervised start."""
    tune: TuneSettings = field(default_factory=TuneSettings)
    """Imitation."""
    dpo: DPOSettings = field(default_factory=DPOSettings)
    """Preferences."""
    weight_decay: NonNegativeFloat = 0.1
    """Decoupled weight decay of all stages."""
    clip: PositiveFloat = 1.0
    """Largest norm of the gradient."""
    tests: PositiveInt = 1200
    """Held-out requests for the two axes, half of them harmful."""
    attacked: PositiveInt = 300
    """Held-out harmful requests under each attack, at most."""
    looked_at: PositiveInt = 200
    """Validation requests at the end of each stage."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % self.heads or (self.width // self.heads) % 2:
            raise UsageError(f"width={self.width} must be an even multiple of heads={self.heads}")
        if self.start.definitions + self.start.critical > 0.95:
            raise UsageError(
                "start.definitions and start.critical leave less than 5 % for requests; type "
                "start.definitions=0.4 start.critical=0.38"
            )

    @property
    def stages(self) -> dict[str, int]:
        """The steps of each stage, in their order."""
        names = ("start",) if self.method == "start" else ("start", "tune", "dpo")
        return {name: getattr(self, name).steps for name in names}


@lab("ai_safety", Config)
def train(cfg: Config, run: Run) -> None:
    """Three stages in one loop; what a stage learns from is written when it begins."""
    import copy

    import torch

    from ai_safety import constitution, dialogues, lessons, teachers
    from ai_safety.constitutional import table
    from ai_safety.evaluate import look
    from ai_safety.learn import Best, batch_of, by_length, nll, pair_loss, reference_logps
    from ai_safety.report import report
    from labkit.data import batch_indices, check_batch_size
    from pretraining import GPT, Shape
    from pytorch_mastery import one_cycle
    from rlhf import Rows, optimizers_of, set_rates

    vocabulary = lessons.vocabulary()
    principles = constitution.read(cfg.constitution, vocabulary.number)
    teachers.check_attacks(cfg.attacks)
    test = dialogues.held_out("test", cfg.tests)
    valid = dialogues.held_out("valid", cfg.looked_at)
    shares = cfg.start.definitions, cfg.start.critical
    first = lessons.start_lessons(cfg.start.lessons, cfg.seed, *shares)
    for name, count in (("start.lessons", len(first)), ("tune.requests", cfg.tune.requests)):
        check_batch_size(count, cfg.batch_size, name)
    run.generated(
        cfg.data,
        {"start": len(first), "valid": len(valid), "test": len(test)},
        lessons.digest(first, test),
    )
    rows = by_length(table(first, vocabulary, cfg.context), run.device)
    model = GPT(Shape(len(vocabulary), cfg.context, cfg.width, cfg.layers, cfg.heads), "modern")
    model.to(run.device)
    start = copy.deepcopy(model).requires_grad_(False)  # filled when the first stage is over
    optimizers = {
        name: optimizers_of(model, getattr(cfg, name), cfg.weight_decay) for name in cfg.stages
    }
    kept: dict[str, Any] = {"looks": {}}  # what was written on the way, for a resumed run
    best = Best()
    run.track(model=model, start=start, kept=kept, best=best, **{
        f"{name}{i}": each for name, some in optimizers.items() for i, each in enumerate(some)
    })  # fmt: skip

    def teacher() -> teachers.Teacher:
        if cfg.method == "rlhf":
            return teachers.People(cfg.label_noise, cfg.seed)
        return teachers.Constitution(start, vocabulary, principles, cfg.seed)

    def sent(stage: str, count: int) -> list[teachers.Sent]:
        seed = 2 * cfg.seed + (stage == "dpo")
        return teachers.safety_requests(count, cfg.harmless_share, cfg.attacks, seed)

    for step in run.steps(sum(cfg.stages.values())):
        stage = stage_at(step, cfg.stages)
        if stage.step == 0 and stage.name == "tune":
            start.load_state_dict(model.state_dict())
            kept["looks"]["start"] = look(model, vocabulary, valid)
            teaches = teacher()
            imitated = teachers.to_imitate(teaches, sent("tune", cfg.tune.requests))
            imitated += first[: round(cfg.tune.replay * len(imitated))]
            kept["tune"] = list(by_length(table(imitated, vocabulary, cfg.context), run.device))
            kept["shown"] = teaches.shown
        if stage.step == 0 and stage.name == "dpo":
            kept["looks"]["tune"] = look(model, vocabulary, valid)
            best.offer(model, "tune", kept["looks"]["tune"])
            compared = sent("dpo", cfg.dpo.requests)
            pairs = teachers.to_prefer(
                teacher(), compared, model, vocabulary, cfg.dpo.sure, cfg.seed
            )
            kept["agreement"], kept["dpo"] = pairs.agreement, list(pairs.rows)
            kept["reference"] = reference_logps(model, pairs.rows, run.device)
        factor = one_cycle(stage.step, stage.steps, 1.0, 0.1)
        set_rates(optimizers[stage.name], factor)
        if stage.name == "dpo":
            known = kept["reference"]
            size = min(cfg.batch_size, len(known))
            index = torch.tensor(batch_indices(len(known), size, stage.step, cfg.seed))
            with run.autocast():
                loss = pair_loss(model, Rows(*kept["dpo"]), known, index, cfg.dpo.beta, run.device)
        else:
            these = rows if stage.name == "start" else Rows(*kept["tune"])
            with run.autocast():
                loss = nll(model, batch_of(these, cfg.batch_size, stage.step, cfg.seed))
        model.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), cfg.clip)
        for optimizer in optimizers[stage.name]:
            optimizer.step()
        if stage.name == "dpo" and (stage.step + 1) % -(-stage.steps // cfg.dpo.looks) == 0:
            name = f"dpo {stage.step + 1}"
            kept["looks"][name] = look(model, vocabulary, valid)
            best.offer(model, name, kept["looks"][name])
        if step % cfg.log_every == 0 or stage.step in (0, stage.steps - 1):
            rate = getattr(cfg, stage.name).lr * factor
            run.log({f"train/{stage.name}_loss": loss.detach(), "train/lr": rate}, step)
    run.save()

    if cfg.method == "start":
        start.load_state_dict(model.state_dict())
        kept["looks"]["start"] = look(model, vocabulary, valid)
    best.restore(model)
    run.note(chosen=best.name or "start")
    run.plot("loss", *(f"train/{name}_loss" for name in cfg.stages))
    run.result(report(run, model, start, vocabulary, principles, test, kept, cfg.attacked))


if __name__ == "__main__":
    train()
