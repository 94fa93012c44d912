"""Imports a copy of a week with some functions' bodies taken from the lab's solution.

An exercise may call another of its week. So that each can be graded alone, the others are filled
in from the solution while it is graded: in the syntax tree and not in the file, so that every line
of the learner's own file keeps its number, and tracebacks show it.
"""

from __future__ import annotations

import ast
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec, PathFinder, SourceFileLoader
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import CodeType, ModuleType

from labkit import surgery


def filled(source: str, solution: str, names: Sequence[str]) -> ast.Module:
    """The tree of `source` with arguments and bodies of the functions `names` as in `solution`.

    A name that is missing in one of the files is ignored.
    """
    tree, right = ast.parse(source.removeprefix("\ufeff")), surgery.functions(solution)
    own = surgery.functions(tree)
    for name in names:
        if name not in own or name not in right:
            continue
        node, line = own[name], own[name].lineno
        node.args, node.body = right[name].args, right[name].body
        for part in [node.args, *node.body]:
            for each in ast.walk(part):
                if hasattr(each, "lineno"):
                    each.lineno = each.end_lineno = line  # type: ignore[attr-defined]
                    each.col_offset = each.end_col_offset = 0  # type: ignore[attr-defined]
    return tree


class Finder(MetaPathFinder):
    """Finds the week's own modules, and gives those with functions to fill another loader."""

    def __init__(self, week: str, files: dict[str, tuple[str, list[str]]]) -> None:
        self.week, self.files = week, files

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not name.startswith(f"{self.week}."):
            return None
        spec = PathFinder.find_spec(name, path, target)
        return self.dress(spec) if spec else None

    def dress(self, spec: ModuleSpec) -> ModuleSpec:
        origin = str(Path(spec.origin).resolve()) if spec.origin else ""
        if origin in self.files:
            spec.loader = _Loader(spec.name, spec.origin or "", *self.files[origin])
        return spec


class _Loader(SourceFileLoader):
    def __init__(self, name: str, path: str, solution: str, names: list[str]) -> None:
        super().__init__(name, path)
        self.solution, self.names = solution, names

    def get_code(self, fullname: str) -> CodeType:
        source = surgery.read(Path(self.path))
        return compile(filled(source, self.solution, self.names), self.path, "exec")


def install(week: str, package: Path, solution: Path, solved: dict[str, list[str]]) -> Finder:
    """Put a finder for the week first; `solved` names functions to fill, by file. Reads now."""
    files = {
        str((package / file).resolve()): (surgery.read(solution / file), names)
        for file, names in solved.items()
        if names
    }
    finder = Finder(week, files)
    sys.meta_path.insert(0, finder)
    return finder


def load(week: str, package: Path, finder: Finder) -> None:
    """Import the copy under test as the week's package, from any folder."""
    assert week not in sys.modules, f"{week} was already imported"
    init = package / "__init__.py"
    spec = spec_from_file_location(week, init, submodule_search_locations=[str(package)])
    assert spec is not None
    spec = finder.dress(spec)
    assert spec.loader is not None
    module = sys.modules[week] = module_from_spec(spec)
    spec.loader.exec_module(module)
