"""Week 10's recipe against denoising-diffusion-pytorch: seconds of training to one distance, MNIST.

    pip install -e ".[bench]"
    python benchmarks/diffusion_vs_lucidrains.py [--seconds 270] [--times 3] [--samples 2000]

Theirs is the library's class-conditional U-Net and process (`classifier_free_guidance`), trained as
its Trainer does: Adam with betas 0.9 and 0.99 at one rate, gradients clipped at 1, weights averaged
every 10 steps. Width 12 gives it 8 % more parameters than ours has at size tiny. Its own rate,
1e-4, is meant for days on a GPU; `--lr` is higher. Both take batches of 64 from one tensor in
memory, without its image folder and workers. Ours is `+size=tiny +experiment=flow`.

A distance on the way down a schedule depends on its length, so ours is given seconds / times from
the start, with a schedule of that length. If its distance at the end is not above theirs after
`--seconds`, it is `times` times as fast. Ours draws in the 30 steps of its settings, theirs in
`--steps`. The distance is week 3's (pytorch_mastery/distance.py), to as many test pictures as are
drawn; drawing is not counted on either side. `--clock cpu` counts seconds of the processor, for a
machine that others use as well.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from diffusion import EMA, Pipeline, Settings, UNet, from_pictures, to_pictures
from diffusion.guidance import drop_labels
from labkit.data import ImageData, batch_indices, epoch_order, load
from labkit.learning.muon import Muon, others
from labkit.machine import device
from labkit.run import artifacts
from labkit.run.entry import entrypoint
from pytorch_mastery import FeatureDistance, one_cycle
from pytorch_mastery.model import load_classifier

WIDTH, BATCH = 12, 64
Clock = Callable[[], float]
Draw = Callable[[Tensor], Tensor]
"""Labels (N,) -> pictures, uint8 (N, 1, 28, 28)."""


class Ours:
    """`+size=tiny +experiment=flow`, as in diffusion/train.py."""

    name = "ours"

    def __init__(self) -> None:
        self.cfg = entrypoint("diffusion").compose(["+size=tiny", "+experiment=flow"]).config
        cfg = self.cfg
        self.network = UNet(1, 10, cfg.width, cfg.multipliers, cfg.blocks)
        self.ema = EMA(self.network, cfg.ema_decay)
        matrices, decay = self.network.matrices(), cfg.weight_decay
        self.adamw = torch.optim.AdamW(
            others(self.network, matrices), cfg.lr, (0.9, 0.99), weight_decay=decay, fused=True
        )
        self.muon = Muon(matrices, cfg.muon_lr, weight_decay=decay, adjust_lr_fn="match_rms_adamw")
        kept = {k: v for k, v in vars(cfg).items() if k in Settings.__annotations__}
        self.settings = Settings(**kept, image=(1, 28, 28))
        self.process = self.settings.process()
        self.bf16 = device.resolve_precision("auto", torch.device("cpu")) == "bf16"

    def autocast(self) -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=self.bf16)

    def step(self, x: Tensor, y: Tensor, share: float) -> None:
        rate = one_cycle(round(10_000 * share), 10_000, 1.0, rise=0.05)
        self.adamw.param_groups[0]["lr"] = rate * self.cfg.lr
        self.muon.param_groups[0]["lr"] = rate * self.cfg.muon_lr
        labels = drop_labels(y, self.cfg.label_dropout, self.network.null)
        with self.autocast():
            loss = self.process.loss(self.network, from_pictures(x), labels)
        self.network.zero_grad()
        loss.backward()
        self.adamw.step()
        self.muon.step()
        self.ema.update(self.network)

    def draw(self, labels: Tensor) -> Tensor:
        return Pipeline(self.ema.average, self.settings, self.autocast)(labels)


class Theirs:
    """denoising-diffusion-pytorch, with the loop of its Trainer."""

    name = "theirs"

    def __init__(self, lr: float, steps: int, bf16: bool) -> None:
        from denoising_diffusion_pytorch.classifier_free_guidance import GaussianDiffusion, Unet
        from ema_pytorch import EMA as TheirEMA

        self.network = Unet(
            dim=WIDTH, num_classes=10, dim_mults=(1, 2, 4), channels=1, cond_drop_prob=0.1
        )
        self.process = GaussianDiffusion(self.network, image_size=28, sampling_timesteps=steps)
        self.optimizer = torch.optim.Adam(self.process.parameters(), lr, (0.9, 0.99))
        self.ema = TheirEMA(self.process, beta=0.995, update_every=10)
        self.bf16 = bf16

    def step(self, x: Tensor, y: Tensor, share: float) -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            loss = self.process(x.float() / 255, classes=y)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(self.process.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad()
        self.ema.update()

    def draw(self, labels: Tensor) -> Tensor:
        average = self.ema.ema_model
        network = average.model

        def unguided(x: Tensor, t: Tensor, classes: Tensor, **_: object) -> tuple[Tensor, None]:
            return network(x, t, classes, cond_drop_prob=0.0), None

        # Without guidance 2.3.4 returns one tensor where its own sampler takes two.
        network.forward_with_cond_scale = unguided
        parts = [average.sample(y, cond_scale=1.0) for y in labels.split(250)]
        return to_pictures(2 * torch.cat(parts) - 1)


def train(side: Ours | Theirs, data: ImageData, seconds: float, clock: Clock) -> int:
    """Train for that long; returns the number of steps."""
    x, y = data.train.tensors()
    begun, step = clock(), 0
    while (share := (clock() - begun) / seconds) < 1:
        index = torch.from_numpy(batch_indices(len(x), BATCH, step, 0))
        side.step(x[index], y[index], share)
        step += 1
    return step


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    for name, default in (("seconds", 270.0), ("times", 3.0), ("lr", 1e-3)):
        parser.add_argument(f"--{name}", type=float, default=default)
    for name, default in (("samples", 2000), ("steps", 50), ("seed", 0), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--bf16", action="store_true", help="theirs in bf16 too (default: fp32)")
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    try:
        import denoising_diffusion_pytorch  # noqa: F401
    except ImportError:
        sys.exit('denoising-diffusion-pytorch is not installed. Type: pip install -e ".[bench]"')
    data = load("mnist", kind=ImageData)
    assert isinstance(data, ImageData)
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    x, y = data.train.tensors()
    classifier = load_classifier(artifacts.obtain("pytorch_mastery", "mnist", "digits"))
    distance = FeatureDistance(classifier, x, data.test.tensors()[0], args.samples)
    labels = y[torch.tensor(epoch_order(len(y), 0, args.seed)[: args.samples])]
    found = {}
    for make, seconds in (
        (Ours, args.seconds / args.times),
        (lambda: Theirs(args.lr, args.steps, args.bf16), args.seconds),
    ):
        torch.manual_seed(args.seed)
        side = make()
        steps = train(side, data, seconds, clock)
        found[side.name] = distance(side.draw(labels))
        parameters = sum(p.numel() for p in side.network.parameters())
        print(
            f"{side.name:7} {seconds:6.0f} s  {steps:5} steps  {parameters:,} parameters  distance "
            f"{found[side.name]:.3f} (real pictures: {distance.real:.3f})",
            flush=True,
        )
    faster = found["ours"] <= found["theirs"]
    print(
        f"ours is {'at least' if faster else 'NOT'} {args.times:g} times as fast "
        f"({args.clock} seconds, {torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    main()
