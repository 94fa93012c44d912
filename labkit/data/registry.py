"""The names that `data=` takes, and the search for each: local copy, download, clear error."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from labkit import paths
from labkit.data.captioned import ImageTextData
from labkit.data.fetch import obtain
from labkit.data.kinds import (
    DataError,
    Dataset,
    ImageData,
    InstructionData,
    ParallelData,
    PreferenceData,
    TableData,
    TextData,
)
from labkit.data.proteins import ProteinData
from labkit.data.questions import QuestionData
from labkit.data.sets import (
    captions,
    images,
    instructions,
    pairs,
    preferences,
    proteins,
    questions,
    replies,
    scene,
    tables,
    text,
    views,
)
from labkit.data.views import ViewData
from labkit.errors import UsageError
from labkit.show.console import warn
from labkit.text import closest


@dataclass(frozen=True)
class Entry:
    """One dataset: how it is read from a folder, and where it comes from."""

    read: Callable[[Path], Dataset | None]
    """From a data folder such as $LAB_DATA; None when it is not there."""
    url: str
    """Requested first, to see whether the network is there."""
    fetch: Callable[[Path], None]
    """Downloads, with checksums, into a folder that `read` then understands."""
    folder: str
    """Name of what `fetch` fills, below data/."""
    sample: str = ""
    """Name of a folder with a part of the set, which `read` takes where the whole is not."""


EMBEDDED: dict[str, Callable[[], Dataset]] = {
    "digits": images.digits,
    "shapes": images.shapes,
    "pydoc": text.pydoc,
    "dates": pairs.dates,
    "numbers": pairs.numbers,
    "commands": instructions.commands,
    "replies": replies.replies,
    "pydoc_cloze": questions.pydoc_cloze,
    "balls": scene.balls,
    "helices": proteins.helices,
    "diabetes": tables.diabetes,
    "breast_cancer": tables.breast_cancer,
}
REAL: dict[str, Entry] = {
    "mnist": Entry(images.read_mnist, images.MNIST_URL, images.fetch_mnist, "MNIST"),
    "fashion_mnist": Entry(
        images.read_fashion_mnist, images.FASHION_URL, images.fetch_fashion_mnist, "FashionMNIST"
    ),
    "cifar10": Entry(
        images.read_cifar10,
        images.CIFAR10_URL,
        images.fetch_cifar10,
        "cifar-10-batches-py",
        "cifar10_12k",
    ),
    "wikitext2": Entry(text.read_wikitext2, text.WIKITEXT_URL, text.fetch_wikitext2, "wikitext2"),
    "tinyshakespeare": Entry(
        text.read_shakespeare, text.SHAKESPEARE_URL, text.fetch_shakespeare, "tinyshakespeare"
    ),
    "multi30k": Entry(pairs.read_multi30k, pairs.MULTI30K_URL, pairs.fetch_multi30k, "multi30k"),
    "alpaca": Entry(
        instructions.read_alpaca, instructions.ALPACA_URL, instructions.fetch_alpaca, "alpaca"
    ),
    "hh_harmless": Entry(
        preferences.read_hh,
        preferences.HH.url,
        preferences.fetch(preferences.HH),
        "preference/hh-rlhf",
    ),
    "dpo_demo": Entry(
        preferences.read_demo,
        preferences.DEMO.url,
        preferences.fetch(preferences.DEMO),
        "preference/llamafactory_dpo_demo",
    ),
    "polite": Entry(
        preferences.read_polite,
        preferences.POLITE.url,
        preferences.fetch(preferences.POLITE),
        "preference/rasbt",
    ),
    "noto_emoji": Entry(
        captions.read_emoji, captions.EMOJI_URL, captions.not_published(captions.EMOJI), "emoji"
    ),
    "coco_captions_mini": Entry(
        captions.read_coco, captions.COCO_URL, captions.not_published(captions.COCO), "coco_mini"
    ),
    "squad": Entry(questions.read_squad, questions.SQUAD_URL, questions.fetch_squad, "squad"),
    "lego": Entry(views.read_lego, views.LEGO_URL, captions.not_published(views.LEGO), views.LEGO),
    "proteins": Entry(
        proteins.read_proteins, proteins.PROTEINS_URL, proteins.fetch_proteins, "proteins"
    ),
    "wine_quality": Entry(
        tables.read_wine_quality, tables.WINE_URL, tables.fetch_wine_quality, "wine_quality"
    ),
}
KINDS: dict[str, type[Dataset]] = {
    **dict.fromkeys(("mnist", "fashion_mnist", "cifar10", "digits", "shapes"), ImageData),
    **dict.fromkeys(("wikitext2", "tinyshakespeare", "pydoc"), TextData),
    **dict.fromkeys(("multi30k", "dates", "numbers"), ParallelData),
    **dict.fromkeys(("alpaca", "commands"), InstructionData),
    **dict.fromkeys(("hh_harmless", "dpo_demo", "polite", "replies"), PreferenceData),
    **dict.fromkeys(("noto_emoji", "coco_captions_mini"), ImageTextData),
    **dict.fromkeys(("squad", "pydoc_cloze"), QuestionData),
    **dict.fromkeys(("lego", "balls"), ViewData),
    **dict.fromkeys(("proteins", "helices"), ProteinData),
    **dict.fromkeys(("wine_quality", "diabetes", "breast_cancer"), TableData),
}
WORDS = {
    ImageData: "a set of images",
    TextData: "a text",
    TableData: "a table",
    ParallelData: "a set of sentence pairs",
    InstructionData: "a set of instructions",
    PreferenceData: "a set of preferences",
    ImageTextData: "a set of pictures with captions",
    QuestionData: "a set of questions",
    ViewData: "a set of views of a scene",
    ProteinData: "a set of proteins",
}


def names(kind: type[Dataset] = Dataset) -> list[str]:
    """Every name that `data=` takes, or those of one kind."""
    return sorted(name for name, its in KINDS.items() if issubclass(its, kind))


def available() -> dict[str, str | None]:
    """For each name: `embedded`, the place of a readable copy, or None without one."""
    found: dict[str, str | None] = dict.fromkeys(EMBEDDED, "embedded")
    for name in REAL:
        try:
            local = _local(name)
        except DataError:
            local = None
        found[name] = local.source if local else None
    return dict(sorted(found.items()))


def damaged() -> dict[str, str]:
    """What is wrong with each copy on this machine that cannot be read, by name."""
    found = {}
    for name in REAL:
        try:
            _local(name)
        except DataError as error:
            found[name] = str(error)
    return found


def here(name: str) -> bool:
    """Whether `name` can be read without a download; a damaged copy cannot be."""
    try:
        return name in EMBEDDED or (name in REAL and _local(name) is not None)
    except DataError:
        return False


def load(name: str, fallback: str | None = None, kind: type[Dataset] = Dataset) -> Dataset:
    """The dataset `name`; when it is not available and a fallback is named, that one, with a
    warning.

    Raises UsageError for an unknown name or one of another kind, DataError when neither is
    available.
    """
    known = names(kind)
    for word in (name, fallback):
        if word in KINDS and word not in known:
            raise UsageError(
                f"data={word} is {WORDS[KINDS[word]]}, and this week wants {WORDS[kind]}: "
                f"{', '.join(known)}."
            )
        if word is not None and word not in known:
            raise UsageError(
                f"data={word} is not a known dataset{closest(word, known)} "
                f"Known: {', '.join(known)}."
            )
    try:
        return _load(name)
    except DataError as error:
        if fallback is None or fallback == name:
            embedded = ", ".join(word for word in known if word in EMBEDDED)
            other = f", or type data=<one of {embedded}>" if embedded else ""
            raise DataError(f"{error}{other}.") from error
        warn(
            f"{error}\n         Using '{fallback}' instead: the numbers are not those of '{name}'."
        )
        return _load(fallback)


@lru_cache(maxsize=4)
def _load(name: str) -> Dataset:
    if name in EMBEDDED:
        found = EMBEDDED[name]()
        found.check()
        return found
    if (local := _local(name)) is not None:
        return local
    entry = REAL[name]
    try:
        obtain(paths.ROOT / "data" / entry.folder, entry.url, name, entry.fetch)
    except DataError as error:
        places = " or ".join(str(folder) for folder in paths.data_folders())
        raise DataError(
            f"{error}\n       Put a copy into {places}, or set LAB_DATA to a folder that has one"
        ) from error
    fetched = _read(name, paths.ROOT / "data")
    if fetched is None:
        raise DataError(
            f"{name} was downloaded but cannot be read; "
            f"remove {paths.ROOT / 'data' / entry.folder} and try again"
        )
    return fetched


def _local(name: str) -> Dataset | None:
    for folder in paths.data_folders():
        if folder.is_dir() and (found := _read(name, folder)) is not None:
            return found
    return None


def _read(name: str, folder: Path) -> Dataset | None:
    """The set from that folder, checked; None when it is not there. Raises DataError for any
    fault of its files, so that a fallback can be used.
    """
    try:
        found = REAL[name].read(folder)
        if found is not None:
            found.check()
        return found
    except DataError:
        raise
    except (OSError, EOFError, ValueError, TypeError, LookupError) as error:
        raise DataError(
            f"{name} in {folder} cannot be read ({type(error).__name__}: {error}): "
            "replace or remove its files"
        ) from error
