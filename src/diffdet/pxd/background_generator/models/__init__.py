"""Models of the background generator, by name.

A model is a Python module that holds a class `Model` (a `torch.nn.Module` without arguments) and a function
`generate(model)`, which returns the images of one event: ``(40, 250, 768)``, uint8. To add one, choose a name and

* call `register` with the name and where its module is; or
* add the name to `MODELS` and put the module of that name into this package.
"""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Any, Final

from diffdet.core.errors import InputError

__all__ = ["MODELS", "module_of", "register"]

MODELS: Final[list[str]] = ["convnet", "resnet", "ieagan", "clusters"]
"""Names of the models that can be chosen."""

_PLACES: Final[dict[str, str]] = {}


def register(name: str, module: str) -> None:
    """Add a model that lives somewhere else.

    Args:
        name: To choose it by.
        module: Where its Python module is, for example ``"my_package.my_model"``; imported when it is used.

    Raises:
        InputError: If the name is taken by another module.
    """
    if name in MODELS and _PLACES.get(name) != module:
        raise InputError(f"`name` must not be the name of another model; {name!r} is")
    _PLACES[name] = module
    if name not in MODELS:
        MODELS.append(name)


def module_of(name: str) -> ModuleType:
    """The Python module of a model.

    Raises:
        ModuleNotFoundError: If it cannot be found; the message says where it was looked for.
    """
    place = _PLACES.get(name, f"{__name__}.{name}")
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not (place == error.name or place.startswith(f"{error.name}.")):
            raise  # the module is there, but something that it needs is not
        error.msg = (
            f"the model {name!r} is registered, but its Python module {place!r} was not found: put it there, or say "
            "where it is with diffdet.pxd.background_generator.models.register"
        )
        raise


def attribute_of(name: str, attribute: str) -> Any:
    """The class `Model` or the function `generate` of a model.

    Raises:
        ModuleNotFoundError: If its module cannot be found.
        AttributeError: If the module has no such attribute; the message says what it should be.
    """
    module = module_of(name)
    wanted = {
        "Model": "a class derived from torch.nn.Module that takes no arguments",
        "generate": "a function of a model that returns a uint8 tensor of shape (40, 250, 768)",
    }
    if not hasattr(module, attribute):
        raise AttributeError(
            f"the Python module {module.__name__!r} of the model {name!r} must define `{attribute}`, "
            f"{wanted.get(attribute, 'as documented')}; it does not"
        )
    return getattr(module, attribute)
