"""From a validation error to one message: which field, what was given, what was expected."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails, PydanticCustomError

from diffdet.core.errors import InputError
from diffdet.core.words import nearest

_NOT_GIVEN = "\0not given"


@contextmanager
def at(path: str) -> Iterator[None]:
    """Let errors of the block start with the path of the field that they concern."""
    try:
        yield
    except InputError as error:
        text = str(error)
        raise type(error)(text if text.startswith(path) else f"{path}: {text}") from error


def refuse(expected: str, *, field: str = "", given: object = _NOT_GIVEN, hint: str = "") -> PydanticCustomError:
    """An error that a validator raises, in the house's three parts.

    Args:
        expected: What would have been right, to stand after "expected".
        field: Path of the field below the section whose validator raises, for errors that concern several fields.
        given: What was given, where that is not the whole input of the validator.
        hint: One more sentence.

    Returns:
        The error, to be raised.
    """
    context: dict[str, Any] = {"expected": expected, "field": field, "given": given, "hint": hint}
    return PydanticCustomError("diffdet", "expected {expected}", context)


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """A sentence that names the nearest choice, or an empty string."""
    near = nearest(word, choices)
    return f"Did you mean `{near}`?" if near else ""


def show(value: object, limit: int = 60) -> str:
    """A value as text for a message, cut where it gets long."""
    text = repr(value)
    return text if len(text) <= limit else f"{text[: limit - 3]}..."


def path_of(location: Sequence[str | int], data: object, *, missing: bool = False) -> str:
    """A location as a path such as ``volume.layers[2].panels[0].xyz``.

    pydantic puts the tags of unions between the keys; whatever is no key of the data at its place is such a tag and
    left out, but for the last part where that is a key that is missing.
    """
    path, here = "", data
    for place, part in enumerate(location):
        last = missing and place == len(location) - 1
        if isinstance(part, int):
            path += f"[{part}]"
            here = here[part] if isinstance(here, Sequence) and not isinstance(here, str) and part < len(here) else None
        elif isinstance(here, Mapping) and (part in here or last):
            path += f".{part}" if path else part
            here = here.get(part)
    return path


def _expected(error: ErrorDetails) -> str:
    """What pydantic's own message says would have been right."""
    if error["type"] == "missing":
        return "a value: the key is missing"
    if error["type"] in ("too_short", "too_long"):
        context = error.get("ctx") or {}
        bound = f"at least {context['min_length']}" if "min_length" in context else f"at most {context['max_length']}"
        return f"a list of {bound} elements"
    if error["type"] == "finite_number":
        return "a finite number"
    if error["type"].startswith(("model_", "dict_", "dataclass_")):
        return "a section of keys"
    if error["type"].startswith("tuple_") or error["type"] == "list_type":
        return "a list"
    message = error["msg"].replace("Input should be ", "")
    message = (
        message.replace("valid integer", "whole number")
        .replace("valid number", "number")
        .replace("valid string", "text")
    )
    message = message.replace("a valid boolean", "true or false")
    if message.startswith(("greater", "less")):
        message = f"a number {message}"
    return message[0].lower() + message[1:]


def expected_key(expected: str) -> bool:
    """Whether an error is about a key, not about a value."""
    return expected.startswith("one of the keys")


def describe(error: ErrorDetails, data: object) -> str:
    """One line for one error: ``path: expected ..., given ...``."""
    context = error.get("ctx") or {}
    if error["type"].startswith("union_tag"):
        # The tags are the values of the key that says which kind of section this is.
        key = str(context["discriminator"]).strip("'")
        given = error["input"].get(key, _NOT_GIVEN) if isinstance(error["input"], Mapping) else _NOT_GIVEN
        tags = [tag.strip("'") for tag in str(context.get("expected_tags", "'detector', 'passive'")).split(", ")]
        hint = did_you_mean(str(given), tags)
        shown = "nothing" if given == _NOT_GIVEN else show(given)
        expected = " or ".join(map(repr, tags))
        return f"{path_of(error['loc'], data)}.{key}: expected {expected}, given {shown}{'. ' + hint if hint else ''}"
    if error["type"] != "diffdet":
        missing = error["type"] == "missing"
        path = path_of(error["loc"], data, missing=missing)
        expected = _expected(error)
        given = "nothing" if missing else show(error["input"])
        hint = ""
        if error["type"] in ("literal_error", "union_tag_invalid"):
            hint = did_you_mean(
                str(error["input"]),
                [part.strip("'") for part in str(context.get("expected", "")).replace(" or ", ", ").split(", ")],
            )
        return f"{path or 'the configuration'}: expected {expected}, given {given}{'. ' + hint if hint else ''}"
    path = path_of(error["loc"], data)
    field, given, hint = context["field"], context["given"], context["hint"]
    if field:
        path += field if field.startswith("[") or not path else f".{field}"
    unknown = field and expected_key(context["expected"])
    shown = str(given) if unknown else show(error["input"] if given == _NOT_GIVEN else given)
    return f"{path or 'the configuration'}: expected {context['expected']}, given {shown}{'. ' + hint if hint else ''}"


def explain(error: ValidationError, data: object, source: str, limit: int = 12) -> str:
    """The whole message for a configuration that does not pass.

    Args:
        error: What pydantic raised.
        data: The configuration that was validated.
        source: Where it came from, for the first line.
        limit: How many errors to list before counting the rest.

    Returns:
        One line for one error; a heading and one line each for several.
    """
    lines = [describe(detail, data) for detail in error.errors(include_url=False)]
    if len(lines) == 1:
        return f"{source}: {lines[0]}"
    rest = [f"  ... and {len(lines) - limit} more"] if len(lines) > limit else []
    return "\n".join([f"{source}: {len(lines)} values cannot be used", *(f"  {line}" for line in lines[:limit]), *rest])
