"""The rules of who may import whom, for import-linter (`make lint`), made from the curriculum.

    python tests/import_rules.py > rules.ini; lint-imports --config rules.ini

labkit's rooms import downwards only; labkit imports no week; no week imports a later one; nobody
imports a week's `train`; inside a week the order is train, report, figures and evaluate, the
algorithm and the model, data; and there is no circle anywhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from labkit import course
from labkit.paths import ROOT

FLOORS = (
    "labkit.progress",
    "labkit.cli",
    "labkit.doctor | labkit.notebook | labkit.project",
    "labkit.remote",
    "labkit.report | labkit.exercises",
    "labkit.plan",
    "labkit.arguments",
    "labkit.run",
    "labkit.data : labkit.config : labkit.state : labkit.records : labkit.learning",
    "labkit.show : labkit.course",
    "labkit.machine",
    "labkit.bugs",
    "labkit.files | labkit.surgery",
    "labkit.paths",
    "labkit.text | labkit.errors | labkit.bootstrap",
)
"""labkit from top to bottom; `|` stands between rooms that do not know each other."""

ABOVE = ("train", "report", "figures evaluate")
BELOW = ("data",)
"""Modules of a week above and below its algorithm and model, highest first."""


def rules() -> str:
    """The whole configuration file."""
    built = [unit for unit in course.load().units if unit.built]
    weeks = [unit.module for unit in built]
    trains = [f"{program}.train" for unit in built for program in unit.programs]
    sections = [
        section("importlinter", root_packages=["labkit", *weeks]),
        contract("labkit's rooms import downwards only", "layers", layers=FLOORS),
        contract(
            "labkit imports no week",
            "forbidden",
            source_modules=["labkit"],
            forbidden_modules=weeks,
        ),
        contract("no week imports a later one", "layers", layers=weeks[::-1]),
        contract(
            "nobody imports a week's train",
            "protected",
            protected_modules=trains,
            allowed_importers=[],
        ),
        contract("no circles", "acyclic_siblings", ancestors=["labkit", *weeks]),
    ]
    sections += [
        contract(f"{week}: train, report, figures and evaluate, the rest", "layers", layers=order)
        for week in weeks
        if len(order := layers(ROOT / week, week)) > 1
    ]
    return "\n".join(sections)


def layers(folder: Path, week: str) -> list[str]:
    """A week's modules in their order, as far as it has them; those of one level with `:`."""
    modules = {path.stem for path in folder.glob("*.py")} - {"__init__"}
    named = {name for level in (*ABOVE, *BELOW) for name in level.split()}
    levels = [*(level.split() for level in ABOVE), sorted(modules - named)]
    levels += [level.split() for level in BELOW]
    found = ([f"{week}.{name}" for name in level if name in modules] for level in levels)
    return [" : ".join(level) for level in found if level]


def contract(name: str, kind: str, **values: Sequence[str]) -> str:
    key = "".join(c if c.isalnum() else "-" for c in name)
    return section(f"importlinter:contract:{key}", name=[name], type=[kind], **values)


def section(title: str, **values: Iterable[str]) -> str:
    lines = [f"[{title}]"]
    for key, items in values.items():
        found = list(items)
        single = key in ("name", "type")
        lines += [f"{key} = {found[0]}"] if single else [f"{key} =", *(f"    {i}" for i in found)]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    print(rules())
