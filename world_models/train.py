"""Learn a world model (V and M), then a controller (C) inside its dream; judge it in reality.

    python -m world_models.train +size=tiny                         on the lab's mini track
    python -m world_models.train +size=tiny features=v              C sees V alone
    python -m world_models.train +size=tiny features=v_random       ... and an untrained RNN
    python -m world_models.train +size=tiny +experiment=cheating    C cheats in a certain dream
    python -m world_models.train +size=tiny +experiment=ppo         week 13's PPO, no model
    python -m world_models.train +size=tiny +experiment=dreamer     DreamerV2: all learn together

The loop has three phases, one after another: steps of V, steps of M, generations of C. PPO has V
and then its own rounds, and so has Dreamer, unless it sees frames: then it has no V.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, NonNegativeInt, PositiveInt
from reinforcement_learning import PPOSettings
from world_models.settings import (
    CollectSettings,
    DreamerSettings,
    Features,
    RNNSettings,
    SearchSettings,
    VAESettings,
)

MINI = "lab/MiniTrack-v0"
LAST = 1_000_000
"""Number of the test among the episodes and dreams of a run: no generation has it."""


@dataclass
class Config(LabConfig):
    """Week 14: world models, on CarRacing or on the lab's mini track."""

    env: str = "CarRacing-v3"
    """CarRacing-v3 or lab/MiniTrack-v0."""
    method: Literal["world_model", "ppo", "dreamer"] = "world_model"
    """world_model: V, M and C. ppo: V, and week 13's PPO on its latents, on the mini track.
    dreamer: an RSSM, actor and critic, on V's latents or on frames."""
    features: Features = "v_m"
    """What C sees: v, the latents alone; v_random, also an untrained RNN; v_m, also M's state."""
    dream: bool = True
    """C is judged in M's dream; false: on the mini track itself, with real steps."""
    test_copies: PositiveInt = 16
    """Copies of the environment that are driven at once in the final test."""
    test_rounds: PositiveInt = 7
    """Episodes of each of them."""
    looks: NonNegativeInt = 10
    """Real evaluations during the search, on the circuits of the training: for the curve alone."""
    log_every: PositiveInt = 20
    """Steps of V and M between two entries of the training curve."""
    collect: CollectSettings = field(default_factory=CollectSettings)
    """Rollouts of a random policy."""
    vae: VAESettings = field(default_factory=VAESettings)
    """V."""
    rnn: RNNSettings = field(default_factory=RNNSettings)
    """M."""
    search: SearchSettings = field(default_factory=SearchSettings)
    """C and CMA-ES."""
    ppo: PPOSettings = field(default_factory=PPOSettings)
    """Settings of method=ppo."""
    dreamer: DreamerSettings = field(default_factory=DreamerSettings)
    """Settings of method=dreamer."""
    gamma: Annotated[float, Bounds(above=0, below=1)] = 0.99
    """Discount of method=ppo and method=dreamer."""
    target_return: float | None = None
    """Stop when a look has a mean return of this; null: use the whole budget."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.rnn.length > self.collect.steps:
            raise UsageError(
                f"rnn.length={self.rnn.length} is more than the collect.steps={self.collect.steps} "
                f"of a stream; try rnn.length={self.collect.steps}"
            )
        if self.env != MINI and (self.method == "ppo" or not self.dream):
            asked = "method=ppo" if self.method == "ppo" else "dream=false"
            raise UsageError(
                f"{asked} needs thousands of real steps a second, and {self.env} gives some "
                f"hundreds: type env={MINI}"
            )
        shortest = min(self.collect.steps, self.dreamer.drive)
        if self.method == "dreamer" and self.dreamer.length > shortest:
            raise UsageError(
                f"dreamer.length={self.dreamer.length} is more than collect.steps or "
                f"dreamer.drive; try dreamer.length={shortest}"
            )
        if self.method == "ppo" and self.ppo.rounds < 1:
            raise UsageError(f"ppo.steps={self.ppo.steps} are less than one round of PPO")


@lab("world_models", Config)
def train(cfg: Config, run: Run) -> None:
    """Collect, learn V, M and C, and measure."""
    import functools
    from functools import partial

    import numpy as np
    import torch

    from labkit import paths
    from labkit.data import batch_indices, check_batch_size
    from pytorch_mastery import one_cycle
    from world_models import envs, evaluate, latents, report, rollouts
    from world_models.dream import Features
    from world_models.dreamer import Dreamer
    from world_models.model_free import ModelFree
    from world_models.play import Driver
    from world_models.rnn import MDNRNN, MemoryLearner
    from world_models.search import DreamJudge, Search, TrackJudge, key
    from world_models.vae import VAE, VisionLearner

    run.environment(cfg.env)
    envs.spec_of(cfg.env)
    data = rollouts.obtain(cfg.env, cfg.collect, paths.home() / "rollouts")
    run.note(rollouts=data.sha256)
    known, _, unseen = parts = data.split()
    T, N = known.frame.shape[:2]
    check_batch_size(T * N, cfg.vae.batch, "vae.batch")

    vae = VAE(data.frame.shape[2], cfg.vae.latent, cfg.vae.width).to(run.device)
    model, untrained = (
        MDNRNN(cfg.vae.latent, 3, cfg.rnn.hidden, cfg.rnn.mixtures).to(run.device) for _ in "MR"
    )
    watcher = {"v": None, "v_random": untrained, "v_m": model}[cfg.features]
    features = Features(cfg.vae.latent, watcher)
    vision, memory = VisionLearner(vae, cfg.vae, run.autocast), MemoryLearner(model, cfg.rnn)
    drive = partial(Driver, vae, features, run.autocast)

    # Each part's frames as latents; to be asked for when V is trained.
    encoded = functools.cache(partial(latents.encode, parts, vae, run.device, run.autocast))
    dreams = DreamJudge(model, features, lambda: encoded()[0].starts(), cfg.search, cfg.seed)
    learner: Any
    if cfg.method == "ppo":
        learner = ModelFree(vae, run.autocast, cfg.ppo, cfg.gamma, cfg.seed, run.device)
        phases = (cfg.vae.steps, 0, cfg.ppo.rounds)
    elif cfg.method == "dreamer":
        words = (cfg.env, cfg.dreamer, cfg.gamma, cfg.seed, run.device, run.autocast)
        learner = Dreamer(known, vae, *words)
        phases = (cfg.vae.steps if cfg.dreamer.sees == "latents" else 0, 0, cfg.dreamer.rounds)
    else:
        judge: Any = dreams
        if not cfg.dream:
            judge = TrackJudge(drive, cfg.env, cfg.search, cfg.seed)
        own = (features.count, cfg.search, judge, cfg.seed, run.device)
        learner = Search(cfg.env, drive, *own)
        phases = (cfg.vae.steps, cfg.rnn.steps, cfg.search.generations)

    copies = cfg.test_copies, cfg.test_rounds
    run.track(untrained=untrained, **vision.tracked, **memory.tracked, **learner.tracked)
    v_steps, m_steps, c_steps = phases
    for step in run.steps(sum(phases)):
        if step < v_steps:
            t, n = np.divmod(batch_indices(T * N, cfg.vae.batch, step, cfg.seed), N)
            frames = torch.from_numpy(known.frame[t, n]).to(run.device)
            rate = one_cycle(step, v_steps, 1.0, rise=0.05)  # as a share of the peak
            log = vision.update(frames, rate)
            due = step % cfg.log_every == 0
        elif (i := step - v_steps) < m_steps:
            batch = encoded()[0].windows(cfg.rnn.batch, cfg.rnn.length, i, cfg.seed)
            log = memory.update(batch, one_cycle(i, m_steps, 1.0, rise=0.05))
            due = i % cfg.log_every == 0
        else:
            i = step - v_steps - m_steps
            log, due = learner.update(i), True
            if cfg.looks and (i + 1) % max(1, c_steps // cfg.looks) == 0:
                log["eval/return"] = learner.returns(*copies, False, key(cfg.seed, i)).mean()
                if cfg.target_return is not None and log["eval/return"] >= cfg.target_return:
                    run.stop()
        if due:
            run.log(log, step)
    run.save()
    report.curves(run, cfg.method, cfg.looks > 0)
    reality = learner.returns(*copies, True, key(cfg.seed, LAST))
    env = envs.open_copies(cfg.env, cfg.test_copies, test=True)
    guess_rounds = 8 if cfg.env == MINI else cfg.test_rounds
    guess = evaluate.random_return(env, cfg.collect.exploration, guess_rounds)
    metrics = {
        "return": reality.mean(),
        "return_std": reality.std(),
        "random_return": guess,
        "return_ratio": reality.mean() / guess,
        "real_steps": int(data.valid.sum()) + learner.real_steps,
    }
    if cfg.method == "world_model":
        metrics["pixel_error"] = evaluate.pixel_error(vae, unseen.frame, run.device)
        metrics |= evaluate.model_metrics(model, *encoded())
        metrics["dream_return"] = dreams(learner.best, LAST).item()
        report.pictures(run, drive(learner.best, 1), model, cfg.env, cfg.search.temperature)
    env.close()
    run.result(metrics)


if __name__ == "__main__":
    train()
