"""What `torch.nn.Module` classes of the library share: parameter-or-buffer, constants, renamed state-dict keys."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from diffdet.core.errors import InputError


def register_buffer_or_parameter(module: nn.Module, name: str, value: Tensor | float | Sequence[float]) -> None:
    """Register a tensor as what the caller made it: a parameter if it is an `nn.Parameter`, else a buffer.

    So the caller decides what is learnable, by what is passed.

    Args:
        module: Where to register.
        name: Name of the attribute.
        value: An `nn.Parameter` to be learnt; a tensor, number or list of numbers to move with the module and be saved
            with it. Numbers take torch's default dtype.

    Raises:
        InputError: If the value is no tensor and cannot be made one.
    """
    if isinstance(value, nn.Parameter):
        module.register_parameter(name, value)
        return
    if not isinstance(value, Tensor):
        try:
            value = torch.as_tensor(value, dtype=torch.get_default_dtype())
        except (TypeError, ValueError) as error:
            raise InputError(f"`{name}` must be a tensor or numbers; got {value!r}") from error
    module.register_buffer(name, value)


def register_constant(module: nn.Module, name: str, value: Tensor | float | Sequence[float]) -> None:
    """Register a tensor that moves with the module and is not saved with it: it follows from how the module was built.

    Args:
        module: Where to register.
        name: Name of the attribute.
        value: Tensor, number or list of numbers. Numbers take torch's default dtype.
    """
    tensor = value if isinstance(value, Tensor) else torch.as_tensor(value, dtype=torch.get_default_dtype())
    module.register_buffer(name, tensor, persistent=False)


def accept_renamed_keys(module: nn.Module, renamed: Mapping[str, str]) -> None:
    """Let a module load state dicts that spell its keys in an old way; new ones are saved with the new spelling.

    Args:
        module: Module whose `load_state_dict` is to understand old keys; works at any depth of a larger module.
        renamed: New name by old name, relative to the module. A name stands for itself and for everything below it:
            ``{"f_inital": "f_initial"}`` renames ``f_inital.weight`` too.

    Raises:
        InputError: When loading, if a state dict holds one key in both spellings.
    """

    def rename(
        _module: nn.Module, state_dict: dict[str, Any], prefix: str, *_details: Any, **_more_details: Any
    ) -> None:
        for old, new in renamed.items():
            for key in list(state_dict):
                rest = key.removeprefix(prefix + old)
                if not key.startswith(prefix + old) or (rest and not rest.startswith(".")):
                    continue
                target = prefix + new + rest
                if target in state_dict:
                    raise InputError(f"`state_dict` must hold one spelling of a key; got {key!r} and {target!r}")
                state_dict[target] = state_dict.pop(key)

    module.register_load_state_dict_pre_hook(rename)
