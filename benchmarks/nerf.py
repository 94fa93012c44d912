"""Week 23's grids against networks: how long each takes to the same PSNR.

    python benchmarks/nerf.py [--data lego] [--side 100] [--limit 240] [--threads N] [--clock cpu]

All train on the same views and are judged now and then on one pixel in 32 of the validation
views; judging is not counted. Two networks train for `--limit` seconds each:

    plain   NeRF as the well-known PyTorch versions have it, written anew: 8 layers of 256 with ten
            frequencies, 64 + 128 samples of each ray from near to far, two copies (coarse and
            fine), 1,024 rays a step, no space skipped
    mlp     this week's +size=tiny +experiment=mlp

Then `grid` and `hash` (this week's at +size=tiny) train until they are as good as the better of the
two, and for each network the line tells after how many seconds the grids had its PSNR. `--clock
cpu` counts seconds of the processor, for a machine that others use too.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import torch
from torch import Tensor

from cross_frontiers import fields, rendering, sampling, scene
from cross_frontiers.grid import VoxelGrid
from cross_frontiers.mlp import RadianceMLP
from cross_frontiers.render import Rays, RenderSettings, render_rays, tighten
from cross_frontiers.rendering import on_background
from labkit.data import ViewData, load
from labkit.run.entry import entrypoint

Colours = Callable[[Rays], Tensor]


class Judge:
    """Seconds of training without the looks in between, and the PSNR after each look."""

    def __init__(self, views: scene.Scene, cpu: bool, limit: float, target: float) -> None:
        self.now: Callable[[], float] = time.process_time if cpu else time.perf_counter
        self.limit, self.target, self.spent = limit, target, 0.0
        some = torch.arange(0, len(views.valid.rays), 32)
        self.rays = views.valid.rays[some]
        self.truth = on_background(views.valid.pixels[some], 1.0)
        self.found: list[tuple[float, float]] = []
        """(seconds, PSNR), only where it is the best so far."""

    def __enter__(self) -> None:
        self.start = self.now()

    def __exit__(self, *error: object) -> None:
        self.spent += self.now() - self.start

    @torch.no_grad()
    def enough(self, colours: Colours) -> bool:
        """Look; whether the target or the limit was reached."""
        parts = [colours(self.rays[slice(i, i + 1024)]) for i in range(0, len(self.rays), 1024)]
        error = (torch.cat(parts) - self.truth).square().mean()
        psnr = -10 * error.log10().item()
        if not self.found or psnr > self.found[-1][1]:
            self.found.append((self.spent, psnr))
        return psnr >= self.target or self.spent > self.limit

    def seconds_to(self, psnr: float) -> float | None:
        """When this PSNR was reached; None if it never was."""
        return next((seconds for seconds, found in self.found if found >= psnr), None)


def train_field(kind: str, views: scene.Scene, judge: Judge) -> None:
    """This week's field at size tiny, until `judge` has seen enough."""
    words = ["+size=tiny", f"+experiment={kind}" if kind != "grid" else "field=grid"]
    cfg: Any = entrypoint("cross_frontiers").compose(words).config
    settings = getattr(cfg, kind)
    model = fields.make(kind, views.bound, cfg.grid, cfg.hash, cfg.mlp)
    optimizer = torch.optim.Adam(
        model.parameters(), settings.lr, (0.9, 0.99), eps=1e-15, fused=True
    )
    prunings = [round(share * cfg.steps) for share in cfg.prune_at]
    rays = None
    low = torch.autocast("cpu", torch.bfloat16, enabled=cfg.precision == "bf16")

    def colours(given: Rays) -> Tensor:
        met, at = tighten(given, model.occupancy)
        result = torch.full((len(given), 3), cfg.background)
        with low:
            result[at] = render_rays(model, met, how).colour
        return result

    for step in range(cfg.steps):
        with judge:
            if step in prunings:
                model.prune(cfg.prune_below)
                later = cfg.grid.resolutions[prunings.index(step) + 1 :]
                if isinstance(model, VoxelGrid) and later:
                    model.refine(optimizer, later[0], cfg.grid.degree if len(later) == 1 else 0)
                elif isinstance(model, VoxelGrid):
                    model.compact(optimizer)
                rays = None
            if rays is None:
                rays, numbers = tighten(views.train.rays, model.occupancy)
                pixels = views.train.pixels[numbers]
                share = model.occupancy.side / cfg.grid.resolutions[-1] if kind == "grid" else 1.0
                samples = max(round(cfg.samples * share), cfg.samples // 4, 1)
                how = RenderSettings(samples, cfg.fine, cfg.background)
            optimizer.param_groups[0]["lr"] = settings.lr * cfg.decay ** (step / cfg.steps)
            index = torch.randint(len(rays), (cfg.batch_size,))
            behind = torch.full((cfg.batch_size, 3), cfg.background)
            if cfg.random_background:
                behind.uniform_()
            with low:
                out = render_rays(model, rays[index], how, training=True, behind=behind)
            descend(optimizer, (out.colour - on_background(pixels[index], behind)).square().mean())
        if step % 20 == 19 and judge.enough(colours):
            return


def train_plain(views: scene.Scene, judge: Judge) -> None:
    """A coarse and a fine network, until `judge` has seen enough."""
    coarse, fine = (RadianceMLP(views.bound, 256, 8, 10) for _ in range(2))
    optimizer = torch.optim.Adam((*coarse.parameters(), *fine.parameters()), 5e-4)
    step = 0
    while True:
        with judge:
            index = torch.randint(len(views.train.rays), (1024,))
            both = render_plain(coarse, fine, views.train.rays[index], training=True)
            truth = on_background(views.train.pixels[index], 1.0)
            descend(optimizer, sum((c - truth).square().mean() for c in both))
        step += 1
        due = step % 10 == 0 or judge.spent > judge.limit
        if due and judge.enough(lambda rays: render_plain(coarse, fine, rays)[1]):
            return


def render_plain(
    coarse: RadianceMLP, fine: RadianceMLP, rays: Rays, training: bool = False
) -> tuple[Tensor, Tensor]:
    """Colours (R, 3) by both networks, 64 and 64 + 128 samples a ray."""
    jitter = torch.rand(len(rays), 64) if training else torch.full((len(rays), 64), 0.5)
    t = sampling.stratified(rays.near, rays.far, jitter)
    first, weights = march(coarse, rays, t)
    edges = torch.cat((rays.near[:, None], 0.5 * (t[:, 1:] + t[:, :-1]), rays.far[:, None]), 1)
    drawn = sampling.inverse_cdf(edges, weights, torch.rand(len(rays), 128))
    second, _ = march(fine, rays, torch.cat((t, drawn), 1).sort(1).values)
    return first, second


def march(network: RadianceMLP, rays: Rays, t: Tensor) -> tuple[Tensor, Tensor]:
    points = rays.origins[:, None] + t[..., None] * rays.directions[:, None]
    sigma, features = network.density(points.view(-1, 3))
    ways = rays.directions[:, None].expand_as(points).reshape(-1, 3)
    colours = network.colour(features, ways).view(*t.shape, 3)
    weights = rendering.ray_weights(sigma.view(t.shape), rendering.sample_widths(t, rays.far))
    return rendering.composite(weights, colours, 1.0), weights


def descend(optimizer: torch.optim.Optimizer, loss: Any) -> None:
    optimizer.zero_grad()
    loss.backward()
    optimizer.step()


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--data", default="lego")
    parser.add_argument("--side", type=int, default=100)
    parser.add_argument("--limit", type=float, default=240.0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    data = load(args.data, kind=ViewData)
    assert isinstance(data, ViewData)
    views = scene.prepare(data, args.side, 1.0, torch.device("cpu"))
    target, judges = 100.0, {}
    for name in ("plain", "mlp", "grid", "hash"):
        torch.manual_seed(0)
        judge = Judge(views, args.clock == "cpu", args.limit, target)
        if name == "plain":
            train_plain(views, judge)
        else:
            train_field(name, views, judge)
        judges[name] = judge
        seconds, best = judge.found[-1]
        print(f"{name:6} {best:.1f} dB after {seconds:.0f} s", flush=True)
        if name == "mlp":
            target = max(judges[each].found[-1][1] for each in ("plain", "mlp"))
    for network in ("plain", "mlp"):
        seconds, best = judges[network].found[-1]
        for name in ("grid", "hash"):
            after = judges[name].seconds_to(best)
            told = "not reached" if after is None else f"{after:.1f} s, {seconds / after:.0f} times"
            print(f"{best:.1f} dB: {network} {seconds:.0f} s, {name} {told}", flush=True)


if __name__ == "__main__":
    main()
