"""What a full size needs: the table in each week's sheet, and a cell of PROGRESS.md.

Both come from configs/<program>/full.json, the price table and the records of full-size runs.
"""

from __future__ import annotations

from collections.abc import Sequence

from labkit.course import Unit
from labkit.plan import full
from labkit.plan.gpus import GPU, UTILISATION, prices
from labkit.report.grouping import Group, best
from labkit.report.markdown import table
from labkit.text import rough_duration

COLUMNS = ("Full size", "Steps", "Needs", "GPU memory", "Checkpoint")


def full_table(unit: Unit) -> str:
    """A row for each program that has a full size, and what the estimates rest on."""
    known = [(program, full.read(program)) for program in unit.programs]
    listed = [(program, its) for program, its in known if its is not None]
    if not listed:
        return f"Not rehearsed yet: `lab plan {unit.module} --rehearse`.\n"
    cards = prices().gpus if any(its.gpu for _, its in listed) else ()
    rows = [
        (
            f"`python -m {program}.train`",
            f"{its.steps:,}",
            ", ".join(its.data) or "no dataset",
            f"{its.card_mb / 1000:.1f} GB" if its.gpu else "no GPU",
            _megabytes(its.checkpoint_mb),
            *(_on(its, card) for card in cards),
        )
        for program, its in listed
    ]  # fmt: skip
    text = table((*COLUMNS, *(card.name for card in cards)), rows)
    if not cards:
        return text
    return text + (
        f"\nTime and cost are estimates, to a factor of two or three: a rehearsal on a CPU counted "
        f"what a step at full shapes does, and cards reach {UTILISATION:.0%} of their peak. "
        f"Evaluation and downloads come on top. Prices of {prices().date}, from "
        f"{prices().source}; they change. "
        f"`lab plan {unit.module}` measures on your machine.\n"
    )


def _on(its: full.Full, card: GPU) -> str:
    """`1.2 h, $0.41`; empty where no GPU is of use."""
    if not its.gpu:
        return ""
    if not its.fits(card):
        return "does not fit"
    return f"{rough_duration(its.seconds(card))}, {dollars(its.cost(card))}"


def _megabytes(size: float) -> str:
    """`309 MB`, `1.6 GB` or `< 1 MB`."""
    if size >= 1000:
        return f"{size / 1000:.2g} GB"
    return f"{size:.0f} MB" if size >= 1 else "< 1 MB"


def dollars(cost: float) -> str:
    return f"${cost:.2f}" if cost >= 0.01 else "< $0.01"


def full_cell(unit: Unit, groups: Sequence[Group]) -> str:
    """What was measured at full size; else what a full-size run is expected to take and cost."""
    measured = [group for group in groups if group.size == "full"]
    if measured:
        return best(unit, measured)
    its = full.read(unit.module) if unit.built else None
    if its is None:
        return ""
    if not its.gpu:
        return "planned: needs no GPU"
    card = its.cheapest()
    if card is None:
        return "planned: fits on no card of the price table"
    return f"planned: {rough_duration(its.seconds(card))}, {dollars(its.cost(card))} ({card.name})"
