"""Checks of the arguments of `PXDBackgroundGenerator`: the documented types of errors, and what to do instead."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Iterable

from diffdet.core.errors import DiffdetError, InputError
from diffdet.core.words import nearest

__all__ = ["ArgumentTypeError", "verify_checkpoint", "verify_model", "verify_number", "verify_seed", "verify_text"]

LOWEST_SEED, HIGHEST_SEED = -(2**63), 2**63 - 1


class ArgumentTypeError(DiffdetError, TypeError):
    """An argument is of a type that it cannot be of."""


def _type(name: str, expected: str, value: object) -> ArgumentTypeError:
    return ArgumentTypeError(f"`{name}` must be {expected}; got {value!r} of type {type(value).__name__}")


def _is_int(value: object) -> bool:
    """Whether a value is an integer and no truth value: True would silently mean 1."""
    return isinstance(value, int) and not isinstance(value, bool)


def verify_text(name: str, value: object) -> str:
    """A text.

    Raises:
        ArgumentTypeError: If it is none.
    """
    if not isinstance(value, str):
        raise _type(name, "a str", value)
    return value


def verify_model(value: object, models: Iterable[str]) -> str:
    """The name of a registered model.

    Raises:
        ArgumentTypeError: If it is no text.
        InputError: If no such model is registered; the message lists them.
    """
    text = verify_text("model", value)
    known = list(models)
    if text not in known:
        near = nearest(text, known)
        hint = f". Did you mean {near!r}?" if near else ""
        raise InputError(f"`model` must be one of {', '.join(map(repr, known))}; got {text!r}{hint}")
    return text


def verify_checkpoint(value: object) -> str | None:
    """The path of a file, with variables of the environment filled in.

    Raises:
        ArgumentTypeError: If it is neither None, a text nor a path.
        InputError: If there is no regular file.
    """
    if value is None:
        return None
    if not isinstance(value, str | pathlib.Path):
        raise _type("checkpoint", "None, a str or a pathlib.Path", value)
    path = os.path.expandvars(str(value))
    if not os.path.exists(path):
        raise InputError(f"`checkpoint` must be a file that exists; there is nothing at {path!r}")
    if not os.path.isfile(path):
        raise InputError(f"`checkpoint` must be a regular file; {path!r} is none")
    return path


def verify_seed(value: object) -> int | None:
    """An integer of 64 bits with a sign.

    Raises:
        ArgumentTypeError: If it is neither None nor an integer.
        InputError: If it does not fit.
    """
    if value is None:
        return None
    if not _is_int(value):
        raise _type("seed", "None or an int", value)
    assert isinstance(value, int)
    if not LOWEST_SEED <= value <= HIGHEST_SEED:
        raise InputError(f"`seed` must lie in [-2**63, 2**63 - 1]; got {value}")
    return value


def verify_number(name: str, value: object) -> int:
    """A number of threads.

    Raises:
        ArgumentTypeError: If it is no integer.
        InputError: If it is below 1.
    """
    if not _is_int(value):
        raise _type(name, "an int", value)
    assert isinstance(value, int)
    if value < 1:
        raise InputError(f"`{name}` must be greater than 0; got {value}")
    return value
