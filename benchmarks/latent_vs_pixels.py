"""Week 10's sampling in latents against sampling in pixels: seconds for a picture.

    python benchmarks/latent_vs_pixels.py [--size tiny] [--count 500] [--times 3] [--threads N]

Both draw pictures of 28 x 28 in the same number of steps, by the sampler and with the networks that
the settings of `--size` describe; the latents' way ends with the decoder of week 9. How long a
picture takes does not depend on what the weights are, so they are random and nothing is trained.
The two take turns, and the median counts. `--clock cpu` counts seconds of the processor instead of
the clock on the wall, for a machine that others use as well.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch

from diffusion import Pipeline, Settings, UNet
from generative_models import VAE, Autoencoder
from labkit.machine import device
from labkit.run.entry import entrypoint

IMAGE, CLASSES = (1, 28, 28), 10


def pipeline(size: str, latent: bool) -> Pipeline:
    """An untrained pipeline of that size, in latents or in pixels."""
    words = [f"+size={size}"] if size != "full" else []
    experiment = "latent" if latent else "flow"
    cfg = entrypoint("diffusion").compose([*words, f"+experiment={experiment}"]).config
    nine = entrypoint("generative_models").compose([*words, "+experiment=autoencoder"]).config
    autoencoder = None
    if latent:
        vae = VAE(IMAGE, nine.width, nine.levels, nine.vae.latent, nine.vae.spatial)
        autoencoder = Autoencoder(vae.eval().requires_grad_(False))
    shape = autoencoder.latent if autoencoder else IMAGE
    network = UNet(shape[0], CLASSES, cfg.width, cfg.multipliers, cfg.blocks)
    kept = {k: v for k, v in vars(cfg).items() if k in Settings.__annotations__}
    settings = Settings(**kept, image=IMAGE, latent=shape if latent else None)
    bf16 = device.resolve_precision("auto", torch.device("cpu")) == "bf16"

    def autocast() -> torch.autocast:
        return torch.autocast("cpu", torch.bfloat16, enabled=bf16)

    return Pipeline(network.eval().requires_grad_(False), settings, autocast, autoencoder)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", choices=("tiny", "full"), default="tiny")
    for name, default in (("count", 500), ("times", 3), ("threads", 0)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    clock = time.perf_counter if args.clock == "wall" else time.process_time
    pixels, latents = pipeline(args.size, latent=False), pipeline(args.size, latent=True)
    labels = torch.arange(args.count) % CLASSES
    seconds: dict[str, list[float]] = {"pixels": [], "latents": []}
    for _ in range(args.times):
        for name, draw in (("pixels", pixels), ("latents", latents)):
            draw(labels[:20], steps=1)  # first calls set kernels up
            begun = clock()
            draw(labels)
            seconds[name].append((clock() - begun) / args.count)
    steps = pixels.settings.sampling_steps
    for name, draw in (("pixels", pixels), ("latents", latents)):
        parameters = sum(p.numel() for p in draw.network.parameters())
        print(
            f"{name:8} {1000 * statistics.median(seconds[name]):8.2f} ms a picture "
            f"({steps} steps of {draw.settings.sampler}, {parameters:,} parameters)"
        )
    ratios = [a / b for a, b in zip(seconds["pixels"], seconds["latents"], strict=True)]
    print(
        f"a picture through latents takes {statistics.median(ratios):.1f} times less "
        f"({min(ratios):.1f} to {max(ratios):.1f}; {args.clock} seconds, "
        f"{torch.get_num_threads()} threads)"
    )


if __name__ == "__main__":
    main()
