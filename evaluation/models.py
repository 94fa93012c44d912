"""The models that are compared, opened through the faces of weeks 9 and 10.

A model enters the comparison by one function: a count and a seed in, pictures out.
"""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from diffusion import Pipeline, Settings, UNet
from generative_models import Decoder, Generator
from labkit import Run, UsageError, paths
from labkit.data import ImageData
from labkit.records import store
from labkit.run import artifacts
from labkit.show.console import say
from labkit.text import closest, duration

Draw = Callable[[int, int], Tensor]
"""(n, seed) -> pictures, uint8 (n, C, H, W)."""


@dataclass(frozen=True)
class Model:
    """A model that a run of an earlier week publishes."""

    name: str
    title: str
    week: str
    experiment: str | None = None


MODELS = {
    model.name: model
    for model in (
        Model("vae", "VAE", "generative_models"),
        Model("gan", "GAN", "generative_models", "gan"),
        Model("ddpm", "DDPM", "diffusion"),
        Model("flow", "rectified flow", "diffusion", "flow"),
        Model("latent", "latent diffusion", "diffusion", "latent"),
    )
}


def check_names(names: list[str]) -> None:
    """Raises UsageError unless each is in MODELS, or a path (it has a slash) of a run's folder, and
    all differ.
    """
    if len(set(names)) < len(names):
        raise UsageError(f"models={','.join(names)}: each model once")
    for name in names:
        if name not in MODELS and "/" not in name:
            known = list(MODELS)
            raise UsageError(
                f"models: {name!r} is not a known model{closest(name, known)} Known: "
                f"{', '.join(known)}; or the folder of a run, such as runs/diffusion/tiny/..."
            )


def title(name: str) -> str:
    """A model's name for people; of a run's folder its last part."""
    return MODELS[name].title if name in MODELS else Path(name).name


def announce(names: list[str], data: str, size: str) -> None:
    """Say which runs must be made first and how long they took when they were last recorded."""
    needed = [MODELS[name] for name in names if name in MODELS]
    missing = [m for m in needed if not artifacts.at_hand(m.week, data, m.experiment, size)]
    if not missing:
        return
    known = [artifacts.recorded_seconds(m.week, size, data, m.experiment) for m in missing]
    total = sum(seconds or 0 for seconds in known)
    say(f"{len(missing)} of the models to compare are not trained yet; they are trained first:")
    for model, seconds in zip(missing, known, strict=True):
        took = f"{duration(seconds)} when last recorded" if seconds else "time not recorded yet"
        say(f"  {model.title}: {took}")
    if total:
        more = " or more" if None in known else ""
        say(f"  together about {duration(total)}{more}")


def run_folder(typed: str, data: str) -> tuple[str, Path]:
    """Week and model folder of a finished run, or of an artifact, on the dataset `data`.

    Raises UsageError when there is none, when its week is not one of those compared, and when it
    was trained on another dataset.
    """
    folder = paths.typed(typed)
    files = [folder / "result.json", folder / artifacts.RECORD]
    file = next((file for file in files if file.is_file()), None)
    if file is None:
        raise UsageError(
            f"models: {typed} is not the folder of a finished run (it has neither result.json nor "
            f"{artifacts.RECORD}); see {paths.runs()}"
        )
    try:
        record = store.read(file)
    except ValueError as error:
        raise UsageError(f"models: {error}") from error
    if record["week"] not in {model.week for model in MODELS.values()}:
        raise UsageError(f"models: {typed} is a run of {record['week']}, which draws no pictures")
    trained_on = (record.get("data") or {}).get("name")
    if trained_on != data:
        raise UsageError(
            f"models: {typed} was trained on {trained_on}, and this comparison is about {data}; "
            f"type data={trained_on}, or leave that model out"
        )
    inner = folder / "model"
    return record["week"], inner if inner.is_dir() else folder


def random_labels(data: ImageData, n: int, seed: int) -> Tensor:
    """Classes of n random training pictures, so that each is as frequent as it should be."""
    index = np.random.default_rng(seed).integers(len(data.train), size=n)
    return torch.from_numpy(data.train.y[index])


def opened(week: str, folder: Path | None, objective: str, data: ImageData, run: Run) -> Draw:
    """The model of that week in `folder`; without one, a small network at random initialisation.

    A class-conditional model draws the classes of random training pictures. Raises UsageError when
    the folder holds no such model.
    """
    if week == "diffusion":
        pipeline = (
            Pipeline.load(folder, run.device) if folder else _random_pipeline(objective, data)
        )
        pipeline.autocast = run.autocast
        return lambda n, seed: pipeline(random_labels(data, n, seed), seed=seed)
    generator = Generator.load(folder, run.device) if folder else _random_generator(data)
    generator.autocast = run.autocast
    return lambda n, seed: generator.draw(n, seed=seed)


def _random_pipeline(objective: str, data: ImageData) -> Pipeline:
    channels, height, width = data.train.x.shape[1:]
    network = UNet(channels, len(data.classes), width=8, multipliers=[1, 2], blocks=1)
    flow = objective == "flow"
    settings = Settings(
        "flow" if flow else "eps", "cosine", 100, 0.0, 1.0, "euler" if flow else "ddim", 3, 1.0,
        (channels, height, width),
    )  # fmt: skip
    return Pipeline(network.eval().requires_grad_(False), settings)


def _random_generator(data: ImageData) -> Generator:
    channels, height, width = data.train.x.shape[1:]
    return Generator(Decoder((channels, height, width), 8, 2, 8, spatial=False).eval())


def all_draws(names: list[str], data: ImageData, run: Run) -> dict[str, Draw]:
    """Each model by its name, missing runs made first, at the size of this run.

    Raises UsageError for a folder that does not fit, RunFailed when a run that was started fails.
    """
    if run.size != "smoke":
        announce(names, data.name, run.size)
    found: dict[str, Draw] = {}
    for name in names:
        if name in MODELS:
            model = MODELS[name]
            folder = run.artifact(model.week, data.name, experiment=model.experiment, size=run.size)
            week, objective = model.week, model.name
        else:
            (week, folder), objective = run_folder(name, data.name), ""
        found[name] = opened(week, folder, objective, data, run)
    return found


def check_pictures(pictures: Tensor, data: ImageData, name: str) -> None:
    """Raises UsageError unless a model drew pictures of the shape that the dataset has."""
    wanted, found = tuple(data.train.x.shape[1:]), tuple(pictures.shape[1:])
    if found != wanted or pictures.dtype != torch.uint8:
        raise UsageError(
            f"{name} draws {pictures.dtype} pictures {found}, and {data.name} has bytes {wanted}: "
            "it was trained on other pictures. Leave it out of models="
        )
