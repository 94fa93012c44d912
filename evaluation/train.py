"""Compare the generative models of weeks 9 and 10: equal counts, equal features, all metrics.

python -m evaluation.train +size=tiny                     GAN, VAE, DDPM, flow, latent diffusion
python -m evaluation.train +size=tiny models=[ddpm,flow]  only these
python -m evaluation.score real=DIR fake=DIR              any two folders of images
"""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from evaluation.settings import Measures
from labkit import LabConfig, Run, UsageError, lab
from labkit.config.bounds import Bounds

CONTROLS = ("copies", "collapse", "blur", "noise")


@dataclass
class Config(LabConfig):
    """Week 12: which generative model is better, and how sure are we?"""

    data: str = "cifar10"
    """Dataset that the models were trained on; its test images are the reference."""
    models: list[str] = field(default_factory=lambda: ["vae", "gan", "ddpm", "flow", "latent"])
    """Models to compare: vae, gan, ddpm, flow, latent, or folders of runs (with a slash in them).
    Runs that are missing are made first."""
    controls: list[str] = field(default_factory=lambda: list(CONTROLS))
    """Samples with known faults, beside the models: copies, collapse, blur, noise."""
    extractor: Literal["auto", "classifier", "inception", "clip", "dinov2"] = "auto"
    """Features: auto is inception where its weights can be had, else week 3's classifier."""
    weights: str | None = None
    """File or folder with the extractor's weights, instead of a download."""
    samples: Annotated[int, Bounds(least=8)] = 10_000
    """Pictures of each model, and of the reference (at most as many as there are test pictures)."""
    allow_few: bool = False
    """Go on with fewer samples than feature dimensions: distances then measure mostly how few."""
    measure: Measures = field(default_factory=Measures)
    """What is measured."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.models:
            raise UsageError("models= names none; try models=[ddpm]")
        if unknown := [name for name in self.controls if name not in CONTROLS]:
            raise UsageError(f"controls: {unknown[0]!r} is not one of {', '.join(CONTROLS)}")
        if len(set(self.controls)) < len(self.controls):
            raise UsageError("controls: each control once")
        self.measure.check(self.samples)


@lab("evaluation", Config)
def train(cfg: Config, run: Run) -> None:
    """Draw from each model, measure, and put all into one table."""
    import time

    import torch

    from evaluation import controls, extractors, models, report
    from evaluation.frechet import check_count
    from evaluation.manifold import nearest
    from evaluation.measures import frechet_error, measure, real_against_real
    from labkit.data import ImageData, epoch_order

    models.check_names(cfg.models)
    data = run.data(cfg.data, ImageData)
    count = min(cfg.samples, len(data.test), len(data.train))
    cfg.measure.check(count)
    draws = models.all_draws(cfg.models, data, run)
    known = controls.draws(data)
    draws |= {name: known[name] for name in cfg.controls}
    titles = {name: models.title(name) for name in cfg.models} | controls.TITLES

    extractor, seen = extractors.chosen(cfg.extractor, cfg.weights, run, data)
    check_count(count, extractor.dimensions, cfg.allow_few)
    chosen = epoch_order(len(data.test), 0, seed=0)[:count]  # no first N of a sorted set
    reference = data.test.x[chosen]
    real = extractor(torch.from_numpy(reference)).features
    held_out = nearest(real, seen)[0]

    comparison = report.Comparison()
    errors: list[float] = []
    run.track(**comparison.tracked, errors=errors)
    names = list(draws)
    for step in run.steps(len(names)):
        name = names[step]
        begun = time.perf_counter()
        pictures = draws[name](count, run.seed)
        seconds = (time.perf_counter() - begun) * 1000 / count
        models.check_pictures(pictures, data, titles[name])
        fake = extractor(pictures)
        measured = measure(real, fake, cfg.measure, run.seed, seen, held_out)
        comparison.add(name, measured, pictures, data.train.x)
        if name in cfg.models:
            comparison.keep_seconds(run, name, seconds)
        if extractor.dimensions <= 512 or step == 0:  # the textbook is slow
            errors.append(frechet_error(real, fake.features))
        run.log({f"{key}/{name}": value for key, value in measured.scores.items()}, step)
    run.save()

    baseline = real_against_real(real, seen, cfg.measure, run.seed)
    about = f"{data.name}, {count:,} images each, features: {extractor.name}"
    report.write(run, comparison, titles, baseline, about, reference)
    run.note(extractor=extractor.name, samples=count, seconds_per_1000=comparison.seconds)
    run.result(comparison.headline(cfg.models, baseline) | {"frechet_error": max(errors)})


if __name__ == "__main__":
    train()
