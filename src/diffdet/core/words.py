"""The nearest word to a misspelt one. Needs the standard library only, so that the command line can use it at once."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


def nearest(word: str, choices: Iterable[str]) -> str | None:
    """The choice nearest to a misspelt word, or None when none is near.

    Args:
        word: What was given.
        choices: What is allowed.
    """
    by_lower = {choice.lower(): choice for choice in choices}
    found = difflib.get_close_matches(word.lower(), by_lower, n=1, cutoff=0.6)
    return by_lower[found[0]] if found else None
