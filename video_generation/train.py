"""Train one stage of a small video diffusion cascade, and measure its clips.

python -m video_generation.train +size=tiny                          base: predicts and generates
python -m video_generation.train +size=tiny +experiment=temporal     a frame between every two
python -m video_generation.train +size=tiny +experiment=spatial      twice the side; then the chain
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import (
    Bounds,
    Fraction,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    Share,
)


@dataclass
class Config(LabConfig):
    """Week 11: video diffusion on bouncing digits, in space and time apart."""

    data: str = "mnist"
    """What moves: an image set of the registry, or balls, which need no dataset."""
    stage: Literal["base", "temporal", "spatial"] = "base"
    """Stage of the cascade: base, or the super-resolution of time or of space."""
    frames: Annotated[int, Bounds(least=2)] = 16
    """Frames of a clip at the base rate; later stages have one between every two of them as well.
    """
    side: PositiveInt = 64
    """Side of a picture at the base resolution, in pixels; the stage spatial doubles it."""
    objects: PositiveInt = 2
    """Things that move in a clip."""
    given: Annotated[int, Bounds(least=2)] = 5
    """First frames of a clip that the base network continues; two or more show the velocity."""
    clips: Annotated[int, Bounds(least=2)] = 20_000
    """Training clips, made once from the seed of the data."""
    validation: Share = 0.1
    """Share of the training pictures whose clips are for choosing settings."""
    measure_on: Literal["test", "validation"] = "test"
    """Clips that are measured: choose settings on validation, report on test."""
    pictures: NonNegativeInt = 2
    """Single frames of other clips appended to each clip: training on pictures and clips at once.
    """
    unconditional: Fraction = 0.1
    """Base: share of training clips of which no frame is given, so that clips can be generated."""
    augmentation: Share = 0.3
    """Super-resolution: most noise in what the network is given; half of it when drawing."""
    time_mean: float = 0.8
    """Mean of the logit of the training times; higher trains more on noisy clips."""
    time_deviation: NonNegativeFloat = 1.0
    """Standard deviation of the logit of the training times."""
    width: PositiveInt = 96
    """Channels of the U-Net's first level."""
    multipliers: list[PositiveInt] = field(default_factory=lambda: [1, 2, 4])
    """Channels of each level, as multiples of width; the resolution halves from level to level."""
    blocks: PositiveInt = 2
    """Residual blocks of each level, both in the down path and in the up path."""
    patch: PositiveInt = 2
    """The network works on patches of patch x patch pixels."""
    steps: PositiveInt = 60_000
    """Optimiser steps."""
    batch_size: PositiveInt = 64
    """Clips a step of the base stage; later ones take fewer, since their clips have more pixels."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of AdamW: biases, norms, embeddings and the outermost layers."""
    muon_lr: PositiveFloat = 4e-3
    """Peak learning rate of Muon: the matrices of convolutions, attention and modulation."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay of both."""
    ema_decay: Share = 0.999
    """Weight of the old average at an update of the averaged weights, after their warm-up."""
    sampler: Literal["ancestral", "heun", "euler"] = "heun"
    """Sampler of the rectified flow."""
    sampling_steps: PositiveInt = 20
    """Steps of the sampler; heun calls the network twice per step."""
    samples: Annotated[int, Bounds(least=20)] = 2000
    """Clips that are measured, and drawn for the distance."""
    judge_steps: PositiveInt = 2000
    """Steps that the classifier is trained whose features the distances are over."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % 16 or not self.multipliers:
            raise UsageError("width must be a multiple of 16, and multipliers a list like [1,2]")
        smallest = self.patch * 2 ** (len(self.multipliers) - 1)
        if self.side % smallest:
            raise UsageError(
                f"side={self.side} cannot be cut into patches of {self.patch} and halved "
                f"{len(self.multipliers) - 1} times; try side={smallest * 4} or multipliers=[1,2]"
            )
        if self.side < 8:
            raise UsageError(f"side={self.side} leaves no room to move; try side=16")
        if self.given >= self.frames:
            raise UsageError(
                f"a video of frames={self.frames} is shorter than the model's window: given="
                f"{self.given} frames and at least one to predict; try frames={self.given + 5}"
            )
        if self.samples > self.clips:
            raise UsageError(
                f"samples={self.samples} clips cannot be compared with "
                f"clips={self.clips} real ones; "
                f"try samples={self.clips}"
            )
        if self.stage == "spatial" and self.pictures:
            raise UsageError("stage=spatial takes no single pictures; try pictures=0")


@lab("video_generation", Config)
def train(cfg: Config, run: Run) -> None:
    """Train, then draw and measure with the averaged weights."""
    import torch

    from diffusion import EMA, from_pictures
    from labkit.data import ImageData, batch_indices, check_batch_size
    from labkit.learning.muon import Muon, others
    from pytorch_mastery import one_cycle
    from video_generation import cascade, data, report
    from video_generation.evaluate import Distances
    from video_generation.flow import clip_loss
    from video_generation.model import VideoUNet
    from video_generation.pipeline import Pipeline, Settings

    if cfg.data == "balls":
        pools = data.ball_pools()
        run.generated("balls", {k: len(pool) for k, pool in pools.items()}, data.digest(pools))
    else:
        pools = data.pools(run.data(cfg.data, ImageData), cfg.validation)
    settings = Settings(
        **{k: v for k, v in vars(cfg).items() if k in Settings.__annotations__},
        channels=pools["train"].x.shape[1],
    )
    motion = settings.motion(cfg.objects)
    larger = motion.frames * motion.side**2 / (cfg.frames * cfg.side**2)
    batch_size = max(1, round(cfg.batch_size / larger))
    check_batch_size(cfg.clips, batch_size)
    clips = pools["train"].clips(cfg.clips, motion, seed=1)
    x = torch.from_numpy(clips.frames).to(run.device)  # (N, T, C, S, S)
    model = VideoUNet(
        settings.channels, cfg.width, cfg.multipliers, cfg.blocks, cfg.patch, cfg.stage == "spatial"
    ).to(run.device)
    ema = EMA(model, cfg.ema_decay)
    matrices, decay = model.matrices(), cfg.weight_decay
    adamw = torch.optim.AdamW(
        others(model, matrices), cfg.lr, (0.9, 0.99), weight_decay=decay, fused=True
    )
    muon = Muon(
        matrices, cfg.muon_lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw",
        precision=run.precision,
    )  # fmt: skip
    run.track(model=model, ema=ema, adamw=adamw, muon=muon)
    pipeline = Pipeline(ema.average, settings, run.autocast)

    for step in run.steps(cfg.steps):
        rate = one_cycle(step, cfg.steps, 1.0, rise=0.05)  # as a share of the peak
        adamw.param_groups[0]["lr"] = rate * cfg.lr
        muon.param_groups[0]["lr"] = rate * cfg.muon_lr
        index = torch.from_numpy(batch_indices(len(x), batch_size, step, cfg.seed))
        x0 = from_pictures(x[index.to(run.device)])
        single = torch.randint(len(x), (2, batch_size, cfg.pictures)).to(run.device)
        pictures = from_pictures(x[single[0], single[1] % x.shape[1]])
        given, level, low = cascade.conditions(
            x0, cfg.stage, cfg.given, cfg.unconditional, cfg.augmentation
        )
        with run.autocast():
            loss = clip_loss(
                model, x0, given, level, cfg.time_mean, cfg.time_deviation, low, pictures
            )
        model.zero_grad()
        loss.backward()
        adamw.step()
        muon.step()
        ema.update(model)
        if step % cfg.log_every == 0 or step == cfg.steps - 1:
            rates = {"train/lr": rate * cfg.lr, "train/lr_muon": rate * cfg.muon_lr}
            run.log({"train/loss": loss, **rates}, step)
    run.save()

    pipeline.save(run.dir / "model")
    run.publish(pipeline.save)
    run.plot("training", "train/loss", logy=True)
    test = pools[cfg.measure_on].clips(cfg.samples, motion, seed=2)
    distances = Distances(run, clips, test, cfg.judge_steps)
    metrics = report.report(run, pipeline, test, distances)
    if cfg.stage == "spatial":
        metrics |= report.cascade(run, pipeline, cfg.data, test, distances)
    run.result(metrics)


if __name__ == "__main__":
    train()
