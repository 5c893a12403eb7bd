"""Steps of building a network that need no builder."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch

from diffdet.core.checks import did_you_mean
from diffdet.core.errors import InputError
from diffdet.nn.models.net import PARTS

__all__ = ["BlockClass", "call_block", "read_model_args", "seeded", "state_of_model"]

BlockClass = Callable[..., Any]
"""A class of blocks, or a partial of one."""


@contextmanager
def seeded(seed: int | None) -> Iterator[None]:
    """A block in which torch's default generators start from a seed; afterwards they are as before."""
    if seed is None:
        yield
        return
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        yield


def state_of_model(content: Any) -> Mapping[str, Any]:
    """The network's state in the content of a model's file: under ``"model"``, or the content itself.

    Raises:
        InputError: If it holds no weights.
    """
    if isinstance(content, Mapping) and isinstance(content.get("model"), Mapping):
        return content["model"]
    if isinstance(content, Mapping):
        return content
    raise InputError(f"a file of a model must hold a dict of weights; got {type(content).__name__}")


def read_model_args(model_args: Mapping[str, Mapping[str, Any]] | None) -> dict[str, dict[str, Any]]:
    """Arguments of head, body and tail; keys in lower case.

    Raises:
        InputError: If a part is unknown.
    """
    found: dict[str, dict[str, Any]] = {part: {} for part in PARTS}
    for key, value in (model_args or {}).items():
        name = str(key).lower()
        if name not in PARTS:
            raise InputError(
                f"`model_args` must have the keys {', '.join(map(repr, PARTS))}; got {key!r}{did_you_mean(name, PARTS)}"
            )
        found[name] = {str(k).lower(): v for k, v in value.items()}
    return found


def call_block(block: BlockClass, part: str, own: Mapping[str, Any], offered: Mapping[str, Any], **given: Any) -> Any:
    """Build a block: what it is given, overridden by its own arguments.

    Args:
        block: Class of the block, or a partial.
        part: Name of the part, for messages.
        own: The user's arguments.
        offered: Arguments that are passed where the signature names them.
        **given: Arguments that are always passed, unless a partial has fixed them.

    Raises:
        InputError: If an argument of the user is none of the block's, or one that the block needs is not given.
    """
    parameters = inspect.signature(block).parameters
    fixed = block.keywords if isinstance(block, partial) else {}
    takes_any = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values())
    extra = {key: value for key, value in offered.items() if key in parameters and key not in fixed}
    # What a partial has fixed stays, unless the builder must say it.
    given = {key: value for key, value in given.items() if key not in fixed or key in ("freeze", "cont_feats")}
    name = getattr(block, "__name__", None) or getattr(getattr(block, "func", None), "__name__", part)
    if not takes_any:
        unknown = [key for key in own if key not in parameters]
        if unknown:
            raise InputError(
                f"`model_args[{part!r}]` must be arguments of `{name}`: {', '.join(parameters)}; "
                f"got {unknown[0]!r}{did_you_mean(unknown[0], parameters)}"
            )
    arguments = given | extra | dict(own)
    variable = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)
    needed = [key for key, p in parameters.items() if p.default is p.empty and p.kind not in variable]
    missing = [key for key in needed if key not in arguments]
    if missing:
        raise InputError(f"`model_args[{part!r}]` must give `{name}` {', '.join(map(repr, missing))}; got {dict(own)}")
    return block(**arguments)
