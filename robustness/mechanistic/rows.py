"""What rows of repeated patterns need to fit; apart from patterns.py, which needs torch."""

from __future__ import annotations

from labkit import UsageError


def check_patterns(vocabulary: int, length: int, shortest: int, longest: int) -> None:
    """Raises UsageError when such rows cannot be made, or hold no repetition."""
    if not 2 <= shortest <= longest:
        raise UsageError(
            f"periods from {shortest} to {longest}: the shortest must be 2 or more, and not above "
            "the longest; try induction.shortest=2"
        )
    if longest > vocabulary:
        raise UsageError(
            f"a pattern of {longest} different tokens needs more than "
            f"induction.vocabulary={vocabulary}; try induction.vocabulary={longest}"
        )
    if 2 * longest > length:
        raise UsageError(
            f"a row of {length} tokens is shorter than two patterns of {longest}, so it may repeat "
            f"nothing; try induction.context={2 * longest}"
        )
