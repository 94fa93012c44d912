"""The whole lab in one command and one page.

    python -m capstone.train +size=tiny                      a language model, from text to a server
    python -m capstone.train +size=tiny track=world_model    dream, act, film
    python -m capstone.train +size=tiny track=multimodal     from CLIP to Flamingo to a search page
    python -m capstone.train resume=latest                   goes on in the stage that was cut short
    python -m capstone.chat                                  talks to what the last run made

A track is a list of stages (tracks/), and a stage uses a week through its face. The loop below
knows nothing of them: a step is a step of the stage that is next (stages.py).
"""

from __future__ import annotations

from dataclasses import dataclass, field

from capstone.settings import (
    TRACKS,
    AlignmentSettings,
    AlignSettings,
    MixtureSettings,
    ServeSettings,
    TuneSettings,
)
from labkit import LabConfig, Run, RunFailed, UsageError, lab
from labkit.config.bounds import PositiveInt
from labkit.errors import Interrupted
from labkit.text import closest


@dataclass
class Config(LabConfig):
    """Week 24: the capstone."""

    track: str = "alignment"
    """alignment, world_model, multimodal, or nerf."""
    data: str = "alpaca"
    """Instructions that the model is tuned on: alpaca, or commands (embedded)."""
    corpus: str = "pydoc_cloze"
    """Passages that the search of the tools has beside its own pages: pydoc_cloze, or squad."""
    base: str = "gpt2"
    """Model to begin with: lab://pretraining/tiny, a folder, or a name on the hub."""
    context: PositiveInt = 512
    """Tokens of a chat at most; the base gets more positions when it has fewer."""
    mixture: MixtureSettings = field(default_factory=MixtureSettings)
    """What the model is tuned on, and examined."""
    tune: TuneSettings = field(default_factory=TuneSettings)
    """Instruction tuning."""
    align: AlignSettings = field(default_factory=AlignSettings)
    """DPO."""
    serve: ServeSettings = field(default_factory=ServeSettings)
    """The server and its load."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.track not in TRACKS:
            raise UsageError(
                f"track={self.track} is unknown{closest(self.track, TRACKS)}\n"
                f"The tracks: {', '.join(TRACKS)}"
            )
        if self.serve.port > 65535:
            raise UsageError(f"serve.port={self.serve.port} must be from 0 to 65535; try 8000")
        if not self.mixture.command + self.mixture.tool + self.mixture.safety + self.mixture.thing:
            raise UsageError("mixture: at least one share must be above 0; try mixture.tool=1")
        if self.align.smoothing >= 0.5:
            raise UsageError(f"align.smoothing={self.align.smoothing} must be below 0.5; try 0.1")


@lab("capstone", Config)
def train(cfg: Config, run: Run) -> None:
    """One stage after the other."""
    from capstone import report, tracks
    from capstone.stages import Chain

    settings = AlignmentSettings(
        cfg.data, cfg.corpus, cfg.base, cfg.context, cfg.mixture, cfg.tune, cfg.align, cfg.serve
    )
    chain = Chain(tracks.stages(cfg.track, settings, run), run.dir / "stages")
    run.track(chain=chain)
    for step in run.steps(chain.steps):
        if chain.stage is None and chain.results:
            run.save()  # a kill in the next stage loses nothing of the last one
        try:
            log = chain.step()
        except (UsageError, RunFailed, Interrupted):
            run.save()  # so that resume= goes on with the stage that did not finish
            raise
        if log:
            run.log(log, step)
    run.save()
    run.result(report.report(run, chain))


if __name__ == "__main__":
    train()
