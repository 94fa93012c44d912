"""Protein structures and alignments, as the text of their files."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from labkit.data.kinds import Dataset


@dataclass(frozen=True)
class ProteinData(Dataset):
    """Entries of the Protein Data Bank and alignments of protein families, each by its name. A week
    reads the formats itself.
    """

    structures: dict[str, str]
    """Text in PDB format, by entry such as 1AKI."""
    alignments: dict[str, str]
    """Text in A3M format, by family; there may be none."""

    def check(self) -> None:
        """Raises DataError without a structure, or for a structure without any ATOM line."""
        self._refuse_empty("structures")
        for name, text in self.structures.items():
            lines = text.splitlines()
            self._refuse_unless(
                any(line.startswith("ATOM  ") for line in lines),
                f"its entry {name} has no ATOM line and is not in PDB format",
            )

    def sizes(self) -> dict[str, int]:
        """Structures and alignments."""
        return {"structures": len(self.structures), "alignments": len(self.alignments)}

    def digest(self) -> str:
        """SHA-256 over names and texts, in the order of the names."""
        total = hashlib.sha256()
        for group in (self.structures, self.alignments):
            for name in sorted(group):
                total.update(f"{name}\n{group[name]}\n".encode())
        return total.hexdigest()
