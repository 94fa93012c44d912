"""Week 23's fields against each other and against a plain NeRF: seconds until the held-out views
reach a PSNR.

    python benchmarks/nerf.py [--data lego] [--side 100] [--target 25] [--limit 300] [--threads N]

All train on the same views, and each is looked at on the validation views from time to time; the
looks are not counted. `plain` is NeRF as the well-known PyTorch versions have it, written anew: a
network of 8 layers of 256 with ten frequencies, 64 + 128 samples of each ray from near to far, two
copies (coarse and fine), 1,024 rays a step, no space skipped. `grid` and `hash` are this week's
settings at size tiny. A field that has not reached the target when its time is over is listed with
what it reached. `--clock cpu` counts seconds of the processor, for a machine that others use too.
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
from cross_frontiers.evaluate import look
from cross_frontiers.grid import VoxelGrid
from cross_frontiers.mlp import RadianceMLP
from cross_frontiers.render import Rays, RenderSettings, render_rays, render_views, tighten
from labkit.data import ViewData, load
from labkit.run.entry import entrypoint


class Clock:
    """Seconds of training, without the looks in between."""

    def __init__(self, cpu: bool) -> None:
        self.now: Callable[[], float] = time.process_time if cpu else time.perf_counter
        self.spent = 0.0

    def __enter__(self) -> None:
        self.start = self.now()

    def __exit__(self, *error: object) -> None:
        self.spent += self.now() - self.start


def train_field(
    kind: str, views: scene.Scene, clock: Clock, judge: Callable[[float], bool]
) -> None:
    """This week's field at size tiny, until `judge` has seen enough."""
    cfg: Any = entrypoint("cross_frontiers").compose(["+size=tiny", f"field={kind}"]).config
    settings = getattr(cfg, kind)
    model = fields.make(kind, views.bound, cfg.grid, cfg.hash, cfg.mlp)
    optimizer = torch.optim.Adam(
        model.parameters(), settings.lr, (0.9, 0.99), eps=1e-15, fused=True
    )
    prunings = [round(share * cfg.steps) for share in cfg.prune_at]
    rays = None

    def show(poses: Tensor) -> tuple[Tensor, Tensor]:
        return render_views(model, views.rays(poses), how, *views.size)

    for step in range(cfg.steps):
        with clock:
            if step in prunings:
                model.prune(cfg.prune_below)
                later = cfg.grid.resolutions[prunings.index(step) + 1 :]
                if isinstance(model, VoxelGrid) and later:
                    model.refine(later[0], cfg.grid.degree if len(later) == 1 else 0)
                    optimizer.state.clear()
                    optimizer.param_groups[0]["params"] = list(model.parameters())
                rays = None
            if rays is None:
                rays, numbers = tighten(views.train.rays, model.occupancy)
                targets = views.train.colours[numbers]
                share = model.occupancy.side / cfg.grid.resolutions[-1] if kind == "grid" else 1.0
                how = RenderSettings(max(round(cfg.samples * share), cfg.samples // 4, 1))
            optimizer.param_groups[0]["lr"] = settings.lr * cfg.decay ** (step / cfg.steps)
            index = torch.randint(len(rays), (cfg.batch_size,))
            colour = render_rays(model, rays[index], how, training=True).colour
            descend(optimizer, (colour - targets[index]).square().mean())
        if step % 20 == 19 and judge(look(show, views.valid)):
            return


def train_plain(views: scene.Scene, clock: Clock, judge: Callable[[float], bool]) -> None:
    """A coarse and a fine network, until `judge` has seen enough."""
    coarse, fine = (RadianceMLP(views.bound, 256, 8, 10) for _ in range(2))
    optimizer = torch.optim.Adam((*coarse.parameters(), *fine.parameters()), 5e-4)
    step = 0
    while True:
        with clock:
            index = torch.randint(len(views.train.rays), (1024,))
            both = render_plain(coarse, fine, views.train.rays[index], training=True)
            truth = views.train.colours[index]
            descend(optimizer, sum((c - truth).square().mean() for c in both))
        step += 1
        if step % 25 == 0:
            truth = views.valid.colours
            with torch.no_grad():  # every eighth pixel: a look must not take minutes
                some = torch.arange(0, len(truth), 8)
                parts = [
                    render_plain(coarse, fine, views.valid.rays[i])[1] for i in some.split(1024)
                ]
                error = (torch.cat(parts) - truth[some]).square().mean()
            if judge(-10 * error.log10().item()):
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
    parser.add_argument("--target", type=float, default=25.0)
    parser.add_argument("--limit", type=float, default=300.0)
    parser.add_argument("--threads", type=int, default=0)
    parser.add_argument("--clock", choices=("wall", "cpu"), default="wall")
    args = parser.parse_args()
    if args.threads:
        torch.set_num_threads(args.threads)
    data = load(args.data, kind=ViewData)
    assert isinstance(data, ViewData)
    views = scene.prepare(data, args.side, 1.0, torch.device("cpu"))
    for name in ("grid", "hash", "plain"):
        torch.manual_seed(0)
        clock, best = Clock(args.clock == "cpu"), [0.0]

        def judge(found: float, clock: Clock = clock, best: list[float] = best) -> bool:
            best[0] = max(best[0], found)
            return best[0] >= args.target or clock.spent > args.limit

        if name == "plain":
            train_plain(views, clock, judge)
        else:
            train_field(name, views, clock, judge)
        word = "reached" if best[0] >= args.target else "did not reach"
        print(
            f"{name:6} {word} {args.target:g} dB: {best[0]:.1f} dB after {clock.spent:.0f} s",
            flush=True,
        )


if __name__ == "__main__":
    main()
