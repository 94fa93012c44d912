"""Learn a scene from photographs, and show it from where nobody stood.

python -m cross_frontiers.train +size=tiny                    lego on a voxel grid
python -m cross_frontiers.train +size=tiny +experiment=hash   hash grid and a small network
python -m cross_frontiers.train +size=tiny +experiment=mlp    NeRF's network
python -m cross_frontiers.train +size=tiny +experiment=splats 3-D Gaussian splatting
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Literal

from cross_frontiers.settings import GridSettings, HashSettings, MLPSettings, SplatSettings
from labkit import LabConfig, Run, RunFailed, UsageError, lab
from labkit.config.bounds import Bounds, Fraction, NonNegativeInt, PositiveInt

if TYPE_CHECKING:
    from cross_frontiers.evaluate import Show
    from cross_frontiers.scene import Scene


@dataclass
class Config(LabConfig):
    """Week 23: novel views from a radiance field."""

    data: str = "lego"
    """A set of views of one scene: lego, or balls, which is made here."""
    side: PositiveInt = 200
    """Pixels of a picture's width; larger views are reduced to it."""
    field: Literal["grid", "hash", "mlp", "splats"] = "hash"
    """What holds the scene: a voxel grid, a hash grid, NeRF's network, or a cloud of Gaussians."""
    grid: GridSettings = dataclasses.field(default_factory=GridSettings)
    """Settings of field=grid."""
    hash: HashSettings = dataclasses.field(default_factory=HashSettings)
    """Settings of field=hash."""
    mlp: MLPSettings = dataclasses.field(default_factory=MLPSettings)
    """Settings of field=mlp."""
    splats: SplatSettings = dataclasses.field(default_factory=SplatSettings)
    """Settings of field=splats, for which rays, samples and empty cells do not matter."""
    samples: PositiveInt = 192
    """Samples of each ray; a grid of larger cells takes fewer in proportion, a quarter at least."""
    fine: NonNegativeInt = 0
    """Further samples of each ray, drawn where the first found something."""
    background: Fraction = 1.0
    """Grey level behind the scene: 1 is white, as in the papers' numbers."""
    random_background: bool = True
    """Train before colours drawn at random, a new one for each ray (field=splats: each picture), so
    that only empty space looks empty. Views are judged before `background` all the same."""
    prune_at: list[Fraction] = dataclasses.field(default_factory=lambda: [0.1, 0.3])
    """Shares of the steps after which empty cells are found, and a grid goes to its next stage."""
    prune_below: Fraction = 0.01
    """A cell is empty that hides less than this of what lies behind it."""
    steps: PositiveInt = 20_000
    """Optimiser steps."""
    batch_size: PositiveInt = 16_384
    """Rays a step; field=splats takes one whole picture."""
    decay: Annotated[float, Bounds(above=0, most=1)] = 0.1
    """The learning rate falls to this share of the first one, exponentially."""
    evaluations: PositiveInt = 5
    """Looks at the validation views during training, evenly spaced."""
    frames: NonNegativeInt = 48
    """Pictures of the turntable; 0 makes none."""
    log_every: PositiveInt = 20
    """Steps between two entries of the training curve."""

    def __post_init__(self) -> None:
        super().__post_init__()
        stages = len(self.grid.resolutions)
        if self.field == "grid" and len(self.prune_at) < stages - 1:
            raise UsageError(
                f"grid.resolutions has {stages} stages and prune_at {len(self.prune_at)} changes "
                f"between them; {stages - 1} or more are needed, such as "
                f"prune_at={[round(0.4 * (i + 1) / stages, 2) for i in range(stages - 1)]}"
            )
        if sorted(set(self.prune_at)) != list(self.prune_at):
            raise UsageError(f"prune_at={self.prune_at} must rise, like [0.1,0.3]")
        if self.fine and self.field != "mlp":
            raise UsageError(f"fine={self.fine} is for field=mlp: a grid knows where it is empty")


@lab("cross_frontiers", Config)
def train(cfg: Config, run: Run) -> None:
    """Learn the scene, then show it from the held-out cameras and from all around."""
    from cross_frontiers import scene
    from cross_frontiers.report import report
    from labkit.data import ViewData

    views = scene.prepare(run.data(cfg.data, ViewData), cfg.side, cfg.background, run.device)
    show = (learn_splats if cfg.field == "splats" else learn_field)(cfg, run, views)
    run.plot("training", "train/psnr", "valid/psnr")
    run.result(report(run, show, views, cfg.background, cfg.frames))


def learn_field(cfg: Config, run: Run, views: Scene) -> Show:
    """Render random rays, compare with the pictures, step."""
    import torch

    from cross_frontiers import fields
    from cross_frontiers.evaluate import look
    from cross_frontiers.grid import VoxelGrid
    from cross_frontiers.render import RenderSettings, render_rays, render_views, tighten
    from cross_frontiers.rendering import on_background
    from cross_frontiers.report import save_mesh

    model = fields.make(cfg.field, views.bound, cfg.grid, cfg.hash, cfg.mlp).to(run.device)
    settings: GridSettings | HashSettings | MLPSettings = getattr(cfg, cfg.field)
    optimizer = torch.optim.Adam(model.parameters(), settings.lr, (0.9, 0.99), 1e-15, fused=True)
    run.track(model=model, optimizer=optimizer)
    prunings = [max(1, round(share * cfg.steps)) for share in cfg.prune_at]
    crop = round(cfg.mlp.crop * cfg.steps) if cfg.field == "mlp" else 0
    rays = None
    every = max(1, cfg.steps // cfg.evaluations)

    def show(poses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        with run.autocast():
            return render_views(model, views.rays(poses), rendering, *views.size)

    for step in run.steps(cfg.steps):
        if step in prunings:
            model.prune(cfg.prune_below)
            later = cfg.grid.resolutions[prunings.index(step) + 1 :]
            if isinstance(model, VoxelGrid) and later:
                model.refine(optimizer, later[0], cfg.grid.degree if len(later) == 1 else 0)
            elif isinstance(model, VoxelGrid):
                model.compact(optimizer)
            rays = None
        if rays is None:  # at the start, after resuming, and when cells were found empty
            # Rays that meet nothing teach nothing any more; the others are cut to what they meet.
            rays, numbers = tighten(views.train.rays, model.occupancy)
            pixels = views.train.pixels[numbers]
            middle = torch.isin(numbers, views.train.centre()).nonzero()[:, 0]
            share = model.occupancy.side / cfg.grid.resolutions[-1] if cfg.field == "grid" else 1.0
            samples = max(round(cfg.samples * share), cfg.samples // 4, 1)
            rendering = RenderSettings(samples, cfg.fine, cfg.background)
        for group in optimizer.param_groups:
            group["lr"] = settings.lr * cfg.decay ** (step / cfg.steps)
        index = torch.randint(len(rays), (cfg.batch_size,), device=run.device)
        if step < crop:
            index = middle[index % len(middle)]
        behind = torch.full((cfg.batch_size, 3), cfg.background, device=run.device)
        if cfg.random_background:
            behind.uniform_()
        with run.autocast():
            out = render_rays(model, rays[index], rendering, training=True, behind=behind)
        loss = (out.colour - on_background(pixels[index], behind)).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        last = step == cfg.steps - 1
        if step % cfg.log_every == 0 or last:
            rate, db = optimizer.param_groups[0]["lr"], -10 * loss.detach().log10()
            run.log({"train/loss": loss, "train/psnr": db, "train/lr": rate}, step)
        if step == 200 and out.opacity.max() < 0.01:
            raise RunFailed(
                "after 200 steps every ray goes through the scene as if it were empty; try "
                f"another seed, or {cfg.field}.lr={settings.lr / 3:.1g}"
            )
        if (step + 1) % every == 0 or last:
            share = model.occupancy.share()
            run.log({"valid/psnr": look(show, views.valid), "train/occupied": share}, step)
    run.save()
    if cfg.frames:
        save_mesh(run, model, views.train.poses[::10, :3, 3])
    return show


def learn_splats(cfg: Config, run: Run, views: Scene) -> Show:
    """Render one picture, compare it, step; now and then move what is transparent."""
    import torch

    from cross_frontiers.evaluate import look
    from cross_frontiers.rendering import on_background
    from cross_frontiers.splatting import scatter, splat, splat_views

    cloud = scatter(views.train, cfg.splats.count, cfg.splats.degree, views.focal, views.bound)
    optimizer = torch.optim.Adam(cloud.groups(cfg.splats.lr), eps=1e-15, fused=True)
    first = [group["lr"] for group in optimizer.param_groups]
    run.track(model=cloud, optimizer=optimizer)
    lens = (views.focal, *views.size)
    every = max(1, cfg.steps // cfg.evaluations)

    def show(poses: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return splat_views(cloud, poses, *lens, cfg.background, views.far)

    for step in run.steps(cfg.steps):
        for group, rate in zip(optimizer.param_groups, first, strict=True):
            group["lr"] = rate * cfg.decay ** (step / cfg.steps)
        number = int(torch.randint(len(views.train.poses), ()))
        behind = torch.full((3,), cfg.background, device=run.device)
        if cfg.random_background:
            behind.uniform_()
        picture, _ = splat(cloud, views.train.poses[number], *lens, behind, views.far)
        target = on_background(views.train.rgba[number][None], behind[:, None, None])[0]
        loss = (picture - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if (step + 1) % cfg.splats.relocate_every == 0 and step < 0.7 * cfg.steps:
            cloud.relocate(optimizer)
        last = step == cfg.steps - 1
        if step % cfg.log_every == 0 or last:
            rate, db = optimizer.param_groups[-1]["lr"], -10 * loss.detach().log10()
            run.log({"train/loss": loss, "train/psnr": db, "train/lr": rate}, step)
        if (step + 1) % every == 0 or last:
            run.log({"valid/psnr": look(show, views.valid)}, step)
    run.save()
    return show


if __name__ == "__main__":
    train()
