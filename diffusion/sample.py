"""Draw from a finished run, and write a PNG.

python -m diffusion.sample run=latest n=64
python -m diffusion.sample run=latest n=30 label=7 guidance=3 steps=20 seed=1
"""

import sys
from dataclasses import dataclass
from pathlib import Path

from labkit import UsageError
from labkit.config.words import read_words, real_number, whole_number
from labkit.run import folders

USAGE = """\
Draw from a finished diffusion run, and write a PNG.

usage: python -m diffusion.sample run=latest [n=64] [key=value ...]

  run=latest       the run that finished last, or a run folder
  n=64             how many pictures
  label=           the class to draw: 0, 1, ..., or a list like 3,7; all in turn if left out
  guidance=        guidance scale: 1 is none; the run's own if left out
  sampler=         ancestral; ddim (DDPM); heun, euler (flow); the run's own if left out
  steps=           steps of the sampler; the run's own if left out
  seed=0           the same seed draws the same pictures
  device=auto      auto, cpu, cuda, mps
  out=             file to write; samples/drawn-<seed>.png in the run's folder if left out
"""


OTHERWISE = "train one:\n    python -m diffusion.train +size=tiny"
"""What to type when there is no run."""


@dataclass
class Options:
    """The settings of the command, as text; `read_words` checks their names."""

    run: str = "latest"
    n: str = "64"
    label: str = ""
    guidance: str = ""
    sampler: str = ""
    steps: str = ""
    seed: str = "0"
    device: str = "auto"
    out: str = ""


def main(words: list[str]) -> int:
    """Carry out the command; returns the exit code: 0 done, 2 bad usage."""
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0
    try:
        options = read_words(Options, words, "n=64")
        print(f"wrote {draw(options)}")
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def draw(options: Options) -> Path:
    """Draw what the options ask for and write it; returns the file. Raises UsageError."""
    n, seed = whole_number("n", options.n, 1), whole_number("seed", options.seed, 0)
    folder = folders.with_model(options.run, "diffusion", OTHERWISE)
    steps = whole_number("steps", options.steps, 1) if options.steps else None
    guidance = real_number("guidance", options.guidance) if options.guidance else None

    import torch

    from diffusion.pipeline import Pipeline
    from labkit.machine import device
    from labkit.show.pictures import save_grid

    pipeline = Pipeline.load(folder / "model", device.resolve(options.device))
    settings, process = pipeline.settings, pipeline.process
    if options.sampler and options.sampler not in process.samplers:
        raise UsageError(
            f"sampler={options.sampler}: a run with objective={settings.objective} has "
            + ", ".join(process.samplers)
        )
    if steps and settings.objective != "flow" and steps > settings.timesteps:
        raise UsageError(f"steps={steps}: this run has {settings.timesteps} timesteps; take fewer")
    classes = [whole_number("label", word, 0) for word in options.label.split(",") if word]
    if classes and max(classes) >= pipeline.network.null:
        raise UsageError(f"label={options.label}: classes go from 0 to {pipeline.network.null - 1}")
    choices = torch.tensor(classes or range(pipeline.network.null))
    pictures = pipeline(
        choices[torch.arange(n) % len(choices)],
        guidance=settings.guidance if guidance is None else guidance,
        sampler=options.sampler or None,
        steps=steps,
        seed=seed,
    )
    path = Path(options.out) if options.out else folder / "samples" / f"drawn-{seed}.png"
    try:
        save_grid(path, list(pictures), columns=min(n, 10 if len(choices) == 10 else 8))
    except (OSError, ValueError) as error:
        raise UsageError(f"out={path} cannot be written: {error}") from error
    return path


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
