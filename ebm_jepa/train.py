"""Train an energy-based model or a JEPA, and measure what it learned.

python -m ebm_jepa.train +size=tiny                        JEM: a classifier that is an energy
python -m ebm_jepa.train +size=tiny +experiment=density    an energy in the plane, in nats
python -m ebm_jepa.train +size=tiny +experiment=sigreg     a JEPA of views; +experiment=vicreg
python -m ebm_jepa.train +size=tiny +experiment=jepa       I-JEPA: hidden blocks, a teacher
python -m ebm_jepa.train +size=tiny method=ebm             an energy of pictures without labels

A learner has `update(step, rate)`, which takes one step and returns what is to be logged;
`measures()`, what is logged besides; and `tracked`, what resume needs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Literal

from ebm_jepa.settings import DensitySettings, EBMSettings, JEMSettings, JEPASettings
from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import PositiveInt, Share

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from ebm_jepa.ebm import EBM
    from ebm_jepa.jem import JEM
    from ebm_jepa.jepa import JEPA
    from ebm_jepa.views import Views
    from labkit.data import ImageData


@dataclass
class Config(LabConfig):
    """Week 15: energies and joint embeddings."""

    data: str = "cifar10"
    """Training set: an image set of the registry; method=density makes its own points."""
    method: Literal["jem", "ebm", "density", "jepa"] = "jem"
    """What is trained; the settings of the other methods have no effect."""
    validation: Share = 0.0
    """Share of the training pictures held out. With more than 0 these are measured, and the test
    pictures are not looked at: for choosing settings."""
    log_every: PositiveInt = 10
    """Steps between two entries of the training curve."""
    jem: JEMSettings = field(default_factory=JEMSettings)
    """Settings of method=jem."""
    ebm: EBMSettings = field(default_factory=EBMSettings)
    """Settings of method=ebm."""
    density: DensitySettings = field(default_factory=DensitySettings)
    """Settings of method=density."""
    jepa: JEPASettings = field(default_factory=JEPASettings)
    """Settings of method=jepa."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("jem", "ebm", "density"):
            its = getattr(self, name)
            if its.chains > its.buffer:
                raise UsageError(
                    f"{name}.chains={its.chains} is more than the buffer has: "
                    f"try {name}.buffer={its.chains}"
                )
            depth = getattr(its, "depth", 28)
            if getattr(its, "network", "") == "wide_resnet" and (depth < 10 or depth % 6 != 4):
                raise UsageError(f"{name}.depth={depth} must be 6 n + 4; try {name}.depth=28")
        if self.density.start == "gaussian":
            raise UsageError(
                "density.start=gaussian needs classes; try density.start=data or uniform"
            )
        for width in (self.jepa.width, self.jepa.predictor_width):
            if width % self.jepa.heads or width % 4:
                raise UsageError(
                    f"jepa.width and jepa.predictor_width must be multiples of 4 and of "
                    f"jepa.heads={self.jepa.heads}, got {width}; "
                    f"try {4 * self.jepa.heads} or a multiple of it"
                )

    @property
    def chosen(self) -> JEMSettings | EBMSettings | DensitySettings | JEPASettings:
        """The settings of the method that `method=` names."""
        return getattr(self, self.method)


@lab("ebm_jepa", Config)
def train(cfg: Config, run: Run) -> None:
    """Train, then measure the averaged weights."""
    from ebm_jepa import learners, report
    from labkit.data import ImageData, check_batch_size
    from pytorch_mastery import one_cycle

    chosen = cfg.chosen
    learner: JEM | EBM | JEPA | Views
    finish: Callable[[], dict[str, float]]
    if cfg.method == "density":
        learner, density = learners.plane(cfg.density, cfg.seed, run.device)
        points = {"train": chosen.steps * chosen.batch_size}
        run.generated(cfg.density.target, points, learners.fingerprint(density))
        finish = partial(report.plane_report, run, learner, density)
    else:
        data = run.data(cfg.data, ImageData)
        fit, measured = split(data, cfg.validation, run.device)
        check_batch_size(len(fit[0]), chosen.batch_size, f"{cfg.method}.batch_size")
    if cfg.method == "jepa":
        learner = learners.joint_embedding(cfg.jepa, data, fit[0], cfg.seed, run.autocast)
        finish = partial(report.jepa_report, run, learner, data, fit, measured)
    elif cfg.method != "density":
        its = cfg.jem if cfg.method == "jem" else cfg.ebm
        outliers = run.data(its.outliers, ImageData)
        if outliers.name == data.name:
            raise UsageError(
                f"{cfg.method}.outliers={data.name} is the training set itself; "
                f"try {cfg.method}.outliers=shapes"
            )
        if cfg.method == "jem":
            learner = learners.classifier(cfg.jem, data, *fit, cfg.seed, run.autocast)
        else:
            learner = learners.unlabelled(cfg.ebm, data, *fit, cfg.seed, run.autocast)
        finish = partial(report.energy_report, run, learner, data, measured, outliers)
    run.track(**learner.tracked)

    for step in run.steps(chosen.steps):
        rate = one_cycle(step, chosen.steps, 1.0, rise=0.1)  # as a share of the peak
        terms = learner.update(step, rate)
        if step % cfg.log_every == 0 or step == chosen.steps - 1:
            named = {f"train/{name}": v for name, v in (terms | learner.measures()).items()}
            run.log({"train/lr": rate * chosen.lr, **named}, step)
    run.save()

    run.result(finish())


def split(
    data: ImageData, share: float, device: torch.device
) -> tuple[tuple[Tensor, Tensor], tuple[Tensor, Tensor]]:
    """Pictures to learn from and pictures to measure, each with their classes: the test set, or
    with a share above 0 that share of the training set, the same in every run.
    """
    import torch

    from labkit.data import check_share, epoch_order

    x, y = data.train.tensors(device)
    if not share:
        return (x, y), data.test.tensors(device)
    check_share(len(x), share)
    order = torch.from_numpy(epoch_order(len(x), 0, seed=0).copy()).to(device)
    held, kept = order.tensor_split([round(share * len(x))])
    return (x[kept], y[kept]), (x[held], y[held])


if __name__ == "__main__":
    train()
