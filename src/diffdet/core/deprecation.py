"""One decorator for names that are to go."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import ParamSpec, TypeVar

P = ParamSpec("P")
R = TypeVar("R")


def deprecated(old: str, *, new: str, since: str, until: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
    """Mark a function, method or class as deprecated: it works as before, and calling it warns.

    Args:
        old: The name that is to go, as the user writes it.
        new: What to use instead.
        since: Version that deprecated it.
        until: Version that removes it.

    Returns:
        A decorator.
    """
    message = f"`{old}` is deprecated since diffdet {since} and will be removed in {until}; use `{new}`"

    def mark(thing: Callable[P, R]) -> Callable[P, R]:
        if isinstance(thing, type):
            plain_init = thing.__init__

            @functools.wraps(plain_init)
            def init(self: object, *args: P.args, **kwargs: P.kwargs) -> None:
                # Subclasses written by users call this too; they depend on the old name as well.
                warnings.warn(message, DeprecationWarning, stacklevel=2)
                plain_init(self, *args, **kwargs)

            setattr(thing, "__init__", init)  # noqa: B010 - the type of a class attribute is not assignable
            return thing

        @functools.wraps(thing)
        def call(*args: P.args, **kwargs: P.kwargs) -> R:
            warnings.warn(message, DeprecationWarning, stacklevel=2)
            return thing(*args, **kwargs)

        return call

    return mark
