"""The vocabulary of the small world: one token for each word, all known from the start."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ai_safety import dialogues, jailbreaks

END, UNKNOWN = "<end>", "<unknown>"
ASSISTANT = "assistant :"
"""Between a request and its answer."""


def spoken() -> list[str]:
    """Every text of the world's own lists."""
    verbs = (*dialogues.DUAL, *dialogues.SAFE)
    return [
        *(name for names in dialogues.OBJECTS.values() for name in names),
        *verbs, *(verb[::-1] for verb in verbs), *dialogues.PLACES, *dialogues.FICTION,
        *dialogues.WORDINGS,
        *dialogues.HELPS, *dialogues.REFUSALS, *dialogues.EVASIONS, *jailbreaks.SUPPRESSIONS,
        *jailbreaks.PERSONAS, *jailbreaks.PERSONAS.values(), jailbreaks.PREFIX, "act as", ASSISTANT,
    ]  # fmt: skip


class Vocabulary:
    """Words to tokens and back: END is token 0, UNKNOWN 1, the words follow in their order."""

    def __init__(self, texts: Iterable[str]) -> None:
        found = sorted({word for text in texts for word in text.split()} - {END, UNKNOWN, "{}"})
        self.names = [END, UNKNOWN, *found]
        self.number = {name: i for i, name in enumerate(self.names)}

    def __len__(self) -> int:
        return len(self.names)

    def encode(self, text: str) -> list[int]:
        """A token for each word; a word that is not known becomes UNKNOWN."""
        return [self.number.get(word, 1) for word in text.split()]

    def decode(self, tokens: Sequence[int]) -> str:
        """The words of tokens up to the first END."""
        known = [*tokens, 0]
        return " ".join(self.names[token] for token in known[: known.index(0)])
