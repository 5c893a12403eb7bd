"""What all sections of a configuration share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from diffdet.runs.messages import did_you_mean, refuse
from diffdet.runs.registry import ROLES, explain_unknown, is_own_name


class Section(BaseModel):
    """A section: unknown keys are refused with the nearest known one, numbers must be finite and of the right type."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        allow_inf_nan=False,
        validate_default=True,
        populate_by_name=True,
        use_attribute_docstrings=True,
        hide_input_in_errors=True,
    )

    @classmethod
    def keys(cls) -> list[str]:
        """The keys of this section as they stand in a file."""
        return [field.alias or name for name, field in cls.model_fields.items()]

    @model_validator(mode="before")
    @classmethod
    def _refuse_unknown_keys(cls, data: Any) -> Any:
        if isinstance(data, Mapping):
            known = cls.keys()
            for key in data:
                if key not in known and key not in cls.model_fields:
                    raise refuse(
                        f"one of the keys {', '.join(cls.keys())}",
                        field=str(key),
                        given=f"the unknown key {key}",
                        hint=did_you_mean(str(key), cls.keys()),
                    )
        return data


class ClassSpec(Section):
    """A class by name, with arguments. A bare name stands for the class without arguments."""

    role: ClassVar[str] = ""

    class_: str = Field(alias="class")
    """Documented name, or your own class as `package.module:Class`."""
    args: dict[str, Any] = {}
    """Keyword arguments of the class. A value `{class: NAME, args: {...}}` stands for that class with its arguments
    bound."""

    @model_validator(mode="before")
    @classmethod
    def _allow_bare_name(cls, data: Any) -> Any:
        return {"class": data} if isinstance(data, str) else data

    @field_validator("class_")
    @classmethod
    def _name_is_known(cls, name: str) -> str:
        if name in ROLES[cls.role] or is_own_name(name):
            return name
        expected, hint = explain_unknown(cls.role, name)
        raise refuse(expected, hint=hint)

    @field_validator("args")
    @classmethod
    def _args_are_plain(cls, args: dict[str, Any]) -> dict[str, Any]:
        _check_plain(args, "")
        return args

    @property
    def is_own(self) -> bool:
        """Whether the class is a user's own."""
        return self.class_ not in ROLES[self.role]


def _check_plain(value: Any, where: str) -> None:
    """Refuse what a plain file cannot mean: infinities, NaN, dates, keys that are not text or numbers."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if not isinstance(key, (str, int, float)):
                raise refuse("keys that are text or numbers", field=where, given=key)
            _check_plain(inner, f"{where}.{key}" if where else str(key))
    elif isinstance(value, list):
        for place, inner in enumerate(value):
            _check_plain(inner, f"{where}[{place}]")
    elif isinstance(value, float):
        if value != value or value in (float("inf"), float("-inf")):
            raise refuse("a finite number", field=where, given=value)
    elif value is not None and not isinstance(value, (str, int)):
        raise refuse("text, a number, true or false, a list or a section", field=where, given=value)
