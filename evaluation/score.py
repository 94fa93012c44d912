"""Measure one folder of images against another, as a practitioner would.

python -m evaluation.score real=photos fake=generated
python -m evaluation.score real=photos fake=generated extractor=dinov2 metrics=kid,precision_recall
python -m evaluation.score real=digits fake=mine extractor=classifier data=mnist out=scores.json
"""

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from evaluation.settings import METRICS, Measures
from labkit import UsageError
from labkit.config.words import read_words
from labkit.errors import Interrupted, RunFailed
from labkit.text import closest

USAGE = f"""\
Measure one folder of images against another.

usage: python -m evaluation.score real=DIR fake=DIR [key=value ...]

  real=DIR             real images, held out: not those that the model was trained on
  fake=DIR             images to measure; both folders need images of one size, all grey or all RGB
  train=DIR            the model's training images, to find copies (memorisation)
  extractor=inception  features: inception (published FIDs), dinov2, clip, or classifier
  weights=             file or folder with the extractor's weights, instead of a download
  data=mnist           dataset of extractor=classifier: week 3's network, trained first if missing
  metrics=all          a list like fid,kid of: {", ".join(METRICS[:4])},
                       {", ".join(METRICS[4:])}
  equal=true           take equally many of both, at random; false: all there are
  allow_few=false      go on with fewer images than feature dimensions
  seed=0               of every random choice
  device=auto          auto, cpu, cuda, mps
  out=                 file for the result as JSON
"""
EXTRACTORS = ("inception", "dinov2", "clip", "classifier")


@dataclass
class Options:
    """The settings of the command, as text; `parse` has checked their names."""

    real: str = ""
    fake: str = ""
    train: str = ""
    extractor: str = "inception"
    weights: str = ""
    data: str = "mnist"
    metrics: str = "all"
    equal: str = "true"
    allow_few: str = "false"
    seed: str = "0"
    device: str = "auto"
    out: str = ""


def parse(words: list[str]) -> Options:
    """Options from key=value words. Raises UsageError for others, naming the nearest key."""
    options = read_words(Options, words, "real=DIR")
    if not options.real or not options.fake:
        raise UsageError("real=DIR and fake=DIR name the two folders of images; try --help")
    if options.extractor not in EXTRACTORS:
        raise UsageError(
            f"extractor={options.extractor}{closest(options.extractor, EXTRACTORS)} "
            f"Known: {', '.join(EXTRACTORS)}"
        )
    return options


def truth(name: str, text: str) -> bool:
    """`true` or `false` as a bool. Raises UsageError for anything else."""
    if text.lower() not in ("true", "false"):
        raise UsageError(f"{name}={text}: true or false is needed")
    return text.lower() == "true"


def score(options: Options) -> dict[str, Any]:
    """Read, extract and measure; returns the scores with what they are about. Raises UsageError."""
    equal, few = truth("equal", options.equal), truth("allow_few", options.allow_few)
    if not options.seed.isdigit():
        raise UsageError(f"seed={options.seed}: a whole number of at least 0 is needed")
    names = list(METRICS) if options.metrics == "all" else options.metrics.split(",")
    how, seed = Measures(names), int(options.seed)

    from evaluation import images
    from evaluation.frechet import check_count
    from evaluation.manifold import nearest
    from evaluation.measures import measure
    from labkit.machine import device
    from labkit.show.console import warn

    real, fake = images.read_folder(options.real), images.read_folder(options.fake)
    images.check_pair(real, fake)
    if images.identical(fake):
        warn(f"all {len(fake):,} images in {options.fake} are identical")
    if equal:
        count = min(len(real), len(fake))
        real, fake = images.some(real, count, seed), images.some(fake, count, seed)
    how.check(min(len(real), len(fake)))
    train = images.read_folder(options.train) if options.train else None
    if train is not None:
        images.check_pair(train, fake)
    extractor = _extractor(options, real.shape[1], device.resolve(options.device))
    if {"fid", "fid_infinity"} & set(how.metrics):
        check_count(min(len(real), len(fake)), extractor.dimensions, few)
    seen = extractor(real).features
    known = None if train is None else extractor(train).features
    held_out = None if known is None else nearest(seen, known)[0]
    measured = measure(seen, extractor(fake), how, seed, known, held_out)
    counts = {"real": len(real), "fake": len(fake)}
    return {"extractor": extractor.name, "images": counts, "scores": measured.scores}


def _extractor(options: Options, channels: int, place: Any) -> Any:
    from evaluation import extractors

    if options.extractor != "classifier":
        return extractors.pretrained(options.extractor, options.weights or None, place)
    from labkit import data
    from labkit.data import ImageData
    from labkit.run import artifacts
    from pytorch_mastery import load_classifier

    loaded = data.load(options.data, kind=ImageData)
    assert isinstance(loaded, ImageData)
    if loaded.train.x.shape[1] != channels:
        raise UsageError(
            f"data={options.data} has images of {loaded.train.x.shape[1]} channel(s), and the "
            f"folders have {channels}; its classifier cannot see them"
        )
    folder = artifacts.obtain("pytorch_mastery", loaded.name)
    return extractors.standardised(load_classifier(folder, place), loaded, place)[0]


def main(words: list[str]) -> int:
    """Carry out the command; returns the exit code: 0 done, 1 failed, 2 bad usage."""
    if {"-h", "--help"} & set(words):
        print(USAGE, end="")
        return 0
    try:
        options = parse(words)
        found = score(options)
        counts = found["images"]
        print(f"{counts['real']:,} real and {counts['fake']:,} fake images, {found['extractor']}")
        for name, value in found["scores"].items():
            print(f"  {name:18} {value:.6g}")
        if options.out:
            from labkit import files

            files.write_json(Path(options.out), found)
    except UsageError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except (RunFailed, Interrupted) as error:
        print(f"error: {error}", file=sys.stderr)
        return 130 if isinstance(error, Interrupted) else 1
    except OSError as error:
        print(f"error: out={options.out} cannot be written: {error}", file=sys.stderr)
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
