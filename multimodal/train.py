"""Train CLIP: pictures and captions in one space, by contrast.

python -m multimodal.train +size=tiny                        rendered scenes, from nothing
python -m multimodal.train +size=tiny +experiment=siglip     pairs by sigmoids
python -m multimodal.train +size=tiny +experiment=emoji      emoji and their names
python -m multimodal.train folder=/path/to/flickr30k         fine-tune OpenAI's ViT-B/32
python -m multimodal.search "a red circle left of a blue square"    find pictures with it
"""

from __future__ import annotations

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
)


@dataclass
class LoRASettings:
    """Low-rank updates (week 8)."""

    rank: PositiveInt = 16
    """Rank of the update of each matrix inside the towers."""
    alpha: PositiveFloat = 32.0
    """The update is multiplied by alpha / rank."""


@dataclass
class Config(LabConfig):
    """Week 17: CLIP, from nothing or fine-tuned, for retrieval."""

    data: str = "folder"
    """scenes (rendered here), folder, noto_emoji or coco_captions_mini."""
    folder: str | None = None
    """Folder of data=folder: train/ and test/, each with pictures and their metadata.jsonl."""
    validation: Annotated[float, Bounds(above=0, below=1)] = 0.1
    """Share of a set's training pictures held out for choosing settings."""
    scenes: PositiveInt = 50_000
    """Training scenes (data=scenes)."""
    alone: Fraction = 0.5
    """Share of the training scenes with one object; the others have two."""
    hard_negatives: bool = False
    """Each picture stands in a batch beside one that is nearly the same: objects exchanged, or
    another colour or shape (data=scenes)."""
    model: str = "openai/clip-vit-base-patch32"
    """new, or a published CLIP: a folder, or its name on the hub."""
    tune: Literal["all", "projections", "lora"] = "lora"
    """What is trained: see start.py. A new model is trained whole: tune=all."""
    lora: LoRASettings = field(default_factory=LoRASettings)
    """Settings of tune=lora."""
    loss: Literal["infonce", "siglip"] = "infonce"
    """CLIP's softmax over the batch, or a sigmoid for each pair."""
    leave_out_alike: bool = True
    """Leave out pairs of a batch that are no mistake, because the pictures show the same."""
    scale: PositiveFloat = 1 / 0.07
    """First value of the logit scale, one over the temperature; for a new model."""
    most: PositiveFloat = 100.0
    """The logit scale is kept at this or below."""
    bias: float = -10.0
    """First value of SigLIP's bias."""
    side: PositiveInt = 32
    """Pixels of a picture's side, for a new model; a published one states its own."""
    patch: PositiveInt = 8
    """Pixels of a patch's side (new model)."""
    stem: Literal["conv", "patch"] = "conv"
    """How a picture becomes patches: small convolutions, or one large one (new model)."""
    width: PositiveInt = 128
    """Width of both towers (new model)."""
    layers: PositiveInt = 3
    """Layers of each tower (new model)."""
    heads: PositiveInt = 4
    """Attention heads (new model)."""
    embedding: PositiveInt = 64
    """Dimensions of the common space (new model)."""
    context: PositiveInt = 24
    """Most tokens of a caption, END included (new model)."""
    shift: NonNegativeInt = 0
    """Training pictures are shifted by up to so many pixels, at random."""
    steps: PositiveInt = 4000
    """Optimiser steps."""
    batch_size: Annotated[int, Bounds(least=2)] = 512
    """Pairs in a step: two or more, since one pair has nothing to be told apart from."""
    lr: PositiveFloat = 2e-4
    """Peak learning rate of AdamW."""
    muon_lr: NonNegativeFloat = 0.0
    """Peak learning rate of Muon, for the matrices inside the layers; 0: AdamW for all."""
    weight_decay: NonNegativeFloat = 0.1
    """Decoupled weight decay of the matrices."""
    warmup: Fraction = 0.05
    """Share of the steps over which the learning rate rises."""
    evaluations: PositiveInt = 10
    """Looks at the validation recall during training, evenly spaced."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.model == "new" and self.tune != "all":
            raise UsageError(
                f"tune={self.tune} leaves towers as they are that have learned nothing; type "
                "tune=all with model=new"
            )
        if self.data == "scenes" and self.side < 16:
            raise UsageError(f"side={self.side} is too small to tell shapes apart; try side=32")
        if self.hard_negatives and self.data != "scenes":
            raise UsageError(
                f"hard_negatives=true needs scenes, whose opposites can be rendered; with data="
                f"{self.data} type hard_negatives=false"
            )
        if self.scale > self.most:
            raise UsageError(f"scale={self.scale:g} begins above most={self.most:g}; lower it")
        if self.tune == "projections" and self.shift:
            raise UsageError("tune=projections computes features once: type shift=0")


@lab("multimodal", Config)
def train(cfg: Config, run: Run) -> None:
    """A batch of pairs, the contrastive loss, a step."""
    import torch

    from labkit.data import batch_indices, check_batch_size
    from multimodal import features, losses, pool, start, tokens
    from multimodal.evaluate import look
    from multimodal.huggingface import load_published
    from multimodal.pipeline import Pipeline
    from multimodal.report import report
    from pytorch_mastery import one_cycle, random_shift

    published = None if cfg.model == "new" else load_published(cfg.model)
    side = cfg.side if published is None else published[0].shape.side
    drawing = (cfg.scenes, cfg.alone, cfg.hard_negatives)
    pools = pool.obtain(run, cfg.data, cfg.folder, side, cfg.validation, *drawing)
    check_batch_size(len(pools.train), cfg.batch_size)
    captions, _ = pool.flat_captions(pools.train)
    size = start.Size(**{k: v for k, v in vars(cfg).items() if k in start.Size.__annotations__})
    model, tokenizer = published or start.new_model(size, captions, cfg.scale, cfg.bias)
    model.to(run.device)
    start.prepare(model, cfg.tune, cfg.lora.rank, cfg.lora.alpha, cfg.seed)
    optimizers = start.optimizers_of(
        model, cfg.lr, cfg.muon_lr, cfg.weight_decay, precision=run.precision
    )
    run.track(model=model, **{f"optimizer{i}": each for i, each in enumerate(optimizers)})
    pipeline = Pipeline(model, tokenizer, run.autocast)

    x, t = pools.train.pictures, tokens.encode(tokenizer, captions, model.shape.context, cut=True)
    encode_image, encode_text = model.encode_images, model.encode_texts
    if cfg.tune == "projections":
        x, t = features.frozen(model.image, "image", x), features.frozen(model.text, "text", t)
        encode_image, encode_text = model.image_projection, model.text_projection
    x, t, meaning = x.to(run.device), t.to(run.device), pools.train.meaning.to(run.device)
    drawer = pool.Drawer(pools.train.captions, cfg.seed)
    every = max(1, cfg.steps // cfg.evaluations)

    for step in run.steps(cfg.steps):
        rate = one_cycle(step, cfg.steps, 1.0, rise=max(cfg.warmup, 2 / cfg.steps))
        start.set_rates(optimizers, rate)
        drawn = batch_indices(len(x), cfg.batch_size, step, cfg.seed)
        drawn = pool.with_opposites(drawn, pools.train)
        own = torch.from_numpy(drawer.draw(drawn, step)).to(run.device)
        index = torch.from_numpy(drawn).to(run.device)
        pictures = random_shift(x[index], cfg.shift) if cfg.shift else x[index]
        with run.autocast():
            image, text = encode_image(pictures), encode_text(t[own])
        shown = meaning[index] if cfg.leave_out_alike else None
        # In float32: times a scale of 100, bf16 keeps two digits of a cosine.
        if cfg.loss == "infonce":
            loss = losses.infonce(image.float(), text.float(), model.log_scale, shown)
        else:
            loss = losses.siglip(image.float(), text.float(), model.log_scale, model.bias, shown)
        model.zero_grad()
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
        losses.clamp_logit_scale(model.log_scale, cfg.most)
        last = step == cfg.steps - 1
        if step % cfg.log_every == 0 or last:
            scale = model.log_scale.detach().exp()
            run.log({"train/loss": loss, "train/lr": rate * cfg.lr, "train/scale": scale}, step)
        if (step + 1) % every == 0 or last:
            found = look(pipeline, pools)
            run.log({name.replace("_", "/", 1): value for name, value in found.items()}, step)
    run.save()

    final = Pipeline(start.merged(model), tokenizer, run.autocast)
    final.save(run.dir / "model")
    run.publish(final.save)
    run.plot("training", "train/loss")
    run.result(report(run, final, pools))


if __name__ == "__main__":
    train()
