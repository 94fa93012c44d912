"""Train a class-conditional diffusion model and measure its samples.

python -m diffusion.train +size=tiny                     DDPM: predicts the noise
python -m diffusion.train +size=tiny +experiment=flow    rectified flow
python -m diffusion.train +size=tiny +experiment=latent  in the latents of week 9's autoencoder
python -m diffusion.train processes=8                    several GPUs
python -m diffusion.sample run=latest n=64               draw from the run that finished last
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds, NonNegativeFloat, PositiveFloat, PositiveInt, Share


@dataclass
class Config(LabConfig):
    """Week 10: diffusion models on MNIST, DDPM and rectified flow."""

    data: str = "mnist"
    """Training set: an image set of the registry."""
    validation: Annotated[float, Bounds(above=0, below=1)] = 0.1
    """Share of the training pictures held out: settings are chosen by the distance to them."""
    autoencoder: str = "none"
    """none: diffusion in pixels. lab: in the latents of week 9's autoencoder. Or an AutoencoderKL
    of diffusers, by folder or by its name on the hub."""
    network: Literal["ours", "diffusers"] = "ours"
    """The U-Net: this week's, or UNet2DModel of diffusers with the same widths and blocks."""
    objective: Literal["eps", "v", "x0", "flow"] = "eps"
    """What the network predicts: eps, v or x0 of a DDPM, or the velocity of a rectified flow."""
    schedule: Literal["cosine", "linear"] = "cosine"
    """Noise schedule of the DDPM objectives."""
    timesteps: PositiveInt = 1000
    """Noise levels of the DDPM objectives."""
    time_mean: float = 0.0
    """Flow: mean of the logit of the training times; higher trains more on noisy pictures."""
    time_deviation: NonNegativeFloat = 1.0
    """Flow: standard deviation of the logit of the training times."""
    width: PositiveInt = 96
    """Channels of the U-Net's first level."""
    multipliers: list[PositiveInt] = field(default_factory=lambda: [1, 2, 4])
    """Channels of each level, as multiples of width; the resolution halves from level to level."""
    blocks: PositiveInt = 2
    """Residual blocks of each level, both in the down path and in the up path."""
    steps: PositiveInt = 40_000
    """Optimiser steps."""
    batch_size: PositiveInt = 256
    """Pictures a step."""
    lr: PositiveFloat = 1e-3
    """Peak learning rate of AdamW: biases, norms, embeddings and the outermost layers."""
    muon_lr: PositiveFloat = 4e-3
    """Peak learning rate of Muon: the matrices of convolutions, attention and modulation."""
    weight_decay: NonNegativeFloat = 0.01
    """Decoupled weight decay of both."""
    label_dropout: Share = 0.1
    """Share of training pictures whose label is dropped, so that guidance is possible."""
    ema_decay: Share = 0.999
    """Weight of the old average at an update of the averaged weights, after their warm-up."""
    sampler: Literal["ancestral", "ddim", "heun", "euler"] = "ancestral"
    """Sampler: ancestral or ddim for the DDPM objectives; ancestral, heun or euler for flow."""
    sampling_steps: PositiveInt = 100
    """Steps of the sampler; heun calls the network twice per step."""
    guidance: float = 2.0
    """Guidance scale of `guided_accuracy` and of the pictures; the distance is measured without."""
    samples: Annotated[int, Bounds(least=2)] = 10_000
    """Pictures drawn for the distance, two or more (at most as many as there are test pictures)."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.width % 4 or not self.multipliers:
            raise UsageError("width must be a multiple of 4, and multipliers a list like [1,2]")
        flow = self.objective == "flow"
        fitting = ("ancestral", "heun", "euler") if flow else ("ancestral", "ddim")
        if self.sampler not in fitting:
            raise UsageError(
                f"sampler={self.sampler} does not fit objective={self.objective}; "
                f"try sampler={fitting[0]} or sampler={fitting[1]}"
            )
        if not flow and self.sampling_steps > self.timesteps:
            raise UsageError(
                f"sampling_steps={self.sampling_steps} is more than the timesteps={self.timesteps} "
                f"of training; try sampling_steps={self.timesteps}"
            )


@lab("diffusion", Config, distributed=True)
def train(cfg: Config, run: Run) -> None:
    """Train, then draw and measure with the averaged weights."""
    import torch

    from diffusion import latent
    from diffusion.data import hold_out
    from diffusion.ema import EMA
    from diffusion.evaluate import Preview, measure, pictures
    from diffusion.guidance import drop_labels
    from diffusion.pipeline import Pipeline, Settings, from_pictures, network_of
    from labkit.data import ImageData, batch_indices, check_batch_size
    from labkit.learning.muon import Muon, others
    from labkit.learning.parallel import DataParallel
    from pytorch_mastery import one_cycle

    data, valid = hold_out(run.data(cfg.data, ImageData), cfg.validation)
    check_batch_size(len(data.train), cfg.batch_size)
    x, y = data.train.tensors(run.device)
    image = (x.shape[1], x.shape[2], x.shape[3])
    autoencoder, scale, limit = None, 1.0, 1.0
    if cfg.autoencoder != "none":
        autoencoder = latent.obtain(cfg.autoencoder, run, data)
        x = latent.encode(autoencoder, x, 1.0)  # once: every step would encode the same pictures
        scale = latent.scale_factor(x)
        x *= scale
        limit = float(x.abs().max())
    if any(side % 2 ** (len(cfg.multipliers) - 1) for side in x.shape[2:]):
        raise UsageError(
            f"{data.name} {'pictures' if autoencoder is None else 'latents'} are {x.shape[2]} x "
            f"{x.shape[3]}, which cannot be halved {len(cfg.multipliers) - 1} times; try "
            f"multipliers={'[1,2]' if autoencoder is None else '[4]'}"
        )
    model = network_of(
        cfg.network, channels=x.shape[1], classes=len(data.classes), width=cfg.width,
        multipliers=cfg.multipliers, blocks=cfg.blocks,
    )  # fmt: skip
    model.to(run.device)
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
    settings = Settings(
        **{k: v for k, v in vars(cfg).items() if k in Settings.__annotations__},
        image=image,
        latent=None if autoencoder is None else (x.shape[1], x.shape[2], x.shape[3]),
        scale=scale,
        limit=limit,
    )
    process = settings.process()
    pipeline = Pipeline(ema.average, settings, run.autocast, autoencoder)
    preview = Preview(run, pipeline, cfg.guidance)
    parallel = DataParallel(model, run.device, cfg.batch_size)

    for step in run.steps(cfg.steps):
        rate = one_cycle(step, cfg.steps, 1.0, rise=0.05)  # as a share of the peak
        adamw.param_groups[0]["lr"] = rate * cfg.lr
        muon.param_groups[0]["lr"] = rate * cfg.muon_lr
        index = torch.tensor(batch_indices(len(x), cfg.batch_size, step, cfg.seed))
        index = index.to(run.device)
        labels = drop_labels(y[index], cfg.label_dropout, model.null)
        batch = from_pictures(x[index]) if autoencoder is None else x[index]
        with run.autocast():
            loss = process.loss(parallel.model, batch, labels, parallel.rows)
        model.zero_grad()
        loss.backward()
        adamw.step()
        muon.step()
        ema.update(model)
        preview.look(step)
        if step % cfg.log_every == 0 or step == cfg.steps - 1:
            rates = {"train/lr": rate * cfg.lr, "train/lr_muon": rate * cfg.muon_lr}
            run.log({"train/loss": parallel.mean(loss.detach()), **rates}, step)
    run.save()

    pipeline.save(run.dir / "model")
    run.publish(pipeline.save)
    run.plot("training", "train/loss", logy=True)
    pictures(run, pipeline, cfg.guidance)
    run.result(measure(run, pipeline, data, valid, cfg.samples, cfg.guidance))


if __name__ == "__main__":
    train()
