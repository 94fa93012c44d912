"""Measuring a trained model and drawing from it."""

import torch
from torch import Tensor

from diffusion.pipeline import Pipeline
from labkit import Run
from labkit.data import ImageData, Split, epoch_order
from labkit.learning.metrics import frechet_distance, gaussian_statistics
from labkit.run.cadence import Doubling
from labkit.show.console import say
from pytorch_mastery import FeatureDistance, accuracy, judge

FIRST_PREVIEW = 30.0
"""Seconds of training until the first pictures."""
PREVIEW_ROWS = 3
"""Pictures of each class in a preview."""
PREVIEW_STEPS = 15
"""Sampler steps of a preview: all of it costs about as much as five steps of training at tiny."""


def measure(
    run: Run, pipeline: Pipeline, data: ImageData, valid: Split, samples: int, guidance: float
) -> dict[str, float]:
    """The headline metrics: distance of `samples` pictures (at most as many as there are test
    pictures) from real ones, and accuracy under guidance.

    The first takes the classes of random training pictures, so that a perfect model would reach
    `fid_real`; the same pictures, at most as many as `valid` has, are compared with those as well.
    The second takes every class equally often. Where the diffusion is in latents,
    `autoencoder_ratio` is the distance of real training pictures that were only encoded and
    decoded: no network over these latents can be expected to get below it. `latent_ratio` is
    the network's own part: see there.
    """
    x, y = data.train.tensors(run.device)
    x_test, y_test = data.test.tensors(run.device)
    x_valid, _ = valid.tensors(run.device)
    classifier = judge(run, data)
    count, fewer = min(samples, len(x_test)), min(samples, len(x_valid))
    distance = FeatureDistance(classifier, x, x_test, count)
    choosing = FeatureDistance(classifier, x, x_valid, fewer)

    drawn = torch.tensor(epoch_order(len(y), 0, run.seed)[:count])
    made = pipeline.sample(y[drawn], seed=run.seed)
    pictures = pipeline.decode(made)
    fid = distance(pictures)
    asked = torch.arange(min(1000, count), device=run.device) % len(data.classes)
    guided = pipeline(asked, guidance=guidance, seed=run.seed + 1)
    metrics = {
        "fid_ratio": fid / distance.real,
        "valid_fid_ratio": choosing(pictures[:fewer]) / choosing.real,
        "fid": fid,
        "fid_real": distance.real,
        "guided_accuracy": accuracy(classifier, guided, asked),
        "classifier_accuracy": accuracy(classifier, x_test, y_test),
    }
    if pipeline.autoencoder is not None:
        real, held_out = pipeline.encode(x[drawn]), pipeline.encode(x_test[:count])
        metrics["autoencoder_ratio"] = distance(pipeline.decode(real)) / distance.real
        metrics["latent_ratio"] = latent_ratio(made, real, held_out)
    return metrics


def latent_ratio(made: Tensor, train: Tensor, test: Tensor) -> float:
    """Frechet distance of latents `made` from `test`, over that of `train` from `test`.

    All are (N, c, h, w); each number of a latent is standardised with `train` first, as features
    of pictures are in `FeatureDistance`.
    """
    flat = [x.flatten(1).double().cpu().numpy() for x in (made, train, test)]
    mean, deviation = flat[1].mean(axis=0), flat[1].std(axis=0)
    ours, theirs, reference = [gaussian_statistics((x - mean) / deviation) for x in flat]
    return frechet_distance(*ours, *reference) / frechet_distance(*theirs, *reference)


class Preview:
    """Sample pictures during training, at growing intervals: about 1 % of its time.

    They come from the averaged weights by a cheap sampler, a column for each class. The noise has
    its own generator, so the previews do not change the training.
    """

    def __init__(self, run: Run, pipeline: Pipeline, guidance: float) -> None:
        self.run, self.pipeline, self.guidance = run, pipeline, guidance
        self.cadence: Doubling | None = None

    def look(self, step: int) -> None:
        """Draw samples/preview_<step>.png when it is time to."""
        if self.cadence is None:  # a resumed run knows its elapsed time only now
            self.cadence = Doubling(FIRST_PREVIEW, self.run.train_seconds)
        if not self.cadence.due(self.run.train_seconds):
            return
        settings = self.pipeline.settings
        columns = self.pipeline.network.null
        classes = torch.arange(columns).repeat(PREVIEW_ROWS)
        steps = min(PREVIEW_STEPS, settings.sampling_steps)
        sampler = "euler" if settings.objective == "flow" else "ddim"
        drawn = self.pipeline(
            classes, guidance=self.guidance, sampler=sampler, steps=steps, seed=self.run.seed
        )
        name = f"preview_{step:06d}"
        self.run.grid(name, drawn, columns)
        say(f"pictures after {step} steps: {self.run.dir / 'samples' / name}.png")


def pictures(run: Run, pipeline: Pipeline, guidance: float, columns: int = 10) -> None:
    """Draw sample grids (a row for each class), and a strip from noise to picture.

    In the strip each of three classes has two rows: x_t, and the picture predicted from it. Latents
    are decoded first, the noisy ones too.
    """
    classes = torch.arange(pipeline.network.null).repeat_interleave(columns)
    run.grid("samples", pipeline(classes, seed=run.seed), columns)
    run.grid("guided", pipeline(classes, guidance=guidance, seed=run.seed), columns)

    frames: list[tuple[Tensor, Tensor]] = []

    def keep(x: Tensor, x0: Tensor) -> None:
        frames.append((x, x0))

    pipeline(classes[::columns], guidance=guidance, seed=run.seed, trace=keep)
    moments = [frames[round(i * (len(frames) - 1) / (columns - 1))] for i in range(columns)]
    rows = [moment[kind][c] for c in (0, 3, 7) for kind in (0, 1) for moment in moments]
    run.grid("denoising", pipeline.decode(torch.stack(rows)), columns)
