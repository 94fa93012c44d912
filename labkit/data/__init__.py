"""Datasets by name, with provenance: `load("mnist")` is MNIST or an error, never something else.

A dataset is looked for in $LAB_DATA and data/, then downloaded with checksums. If that fails, an
error says what to type. `fallback` names a set that a run uses instead, with a warning and a note
in the record.
"""

from labkit.data.batches import batch_indices, check_batch_size, check_share, epoch_order
from labkit.data.captioned import CaptionedImages, ImageTextData
from labkit.data.kinds import (
    DataError,
    Dataset,
    ImageData,
    Instruction,
    InstructionData,
    Pairs,
    ParallelData,
    Preference,
    PreferenceData,
    Split,
    TableData,
    TextData,
)
from labkit.data.proteins import ProteinData
from labkit.data.questions import Passage, Question, QuestionData
from labkit.data.registry import available, damaged, here, load, names
from labkit.data.views import ViewData, Views

__all__ = [
    "CaptionedImages",
    "DataError",
    "Dataset",
    "ImageData",
    "ImageTextData",
    "Instruction",
    "InstructionData",
    "Pairs",
    "ParallelData",
    "Passage",
    "Preference",
    "PreferenceData",
    "ProteinData",
    "Question",
    "QuestionData",
    "Split",
    "TableData",
    "TextData",
    "ViewData",
    "Views",
    "available",
    "batch_indices",
    "check_batch_size",
    "check_share",
    "damaged",
    "epoch_order",
    "here",
    "load",
    "names",
]
