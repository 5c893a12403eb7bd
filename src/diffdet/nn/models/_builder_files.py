"""Descriptions of networks as JSON. Classes are written by name and looked up in a list; nothing is imported or run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from torch import Tensor, nn

from diffdet.core import storage
from diffdet.core.checks import did_you_mean
from diffdet.core.errors import CheckpointError, InputError
from diffdet.loop import packing
from diffdet.nn.models.helpers import CatEmbedder
from diffdet.nn.models.optimisers import OPTIMISERS

if TYPE_CHECKING:
    from diffdet.nn.models.model_builder import ModelBuilder

__all__ = ["decode", "encode", "known", "load", "save"]

FORMAT: Final = "diffdet-model-builder"
FORMAT_VERSION: Final = 1

_PLAIN = (
    "objective",
    "n_out",
    "cont_feats",
    "model_args",
    "opt_args",
    "cont_subsample_rate",
    "guaranteed_feats",
    "loss",
    "head",
    "body",
    "tail",
    "lookup_init",
    "lookup_act",
    "freeze_head",
    "freeze_body",
    "freeze_tail",
    "seed",
)


@cache
def known() -> Mapping[str, Any]:
    """Classes and functions that a description may name."""
    from diffdet.nn import losses
    from diffdet.nn.models import initialisations, standardised
    from diffdet.nn.models.blocks import body, conv_blocks, gnn_blocks, head, tail
    from diffdet.nn.models.layers import activations, batchnorms

    found: dict[str, Any] = {}
    modules = (head, body, tail, conv_blocks, gnn_blocks, losses, batchnorms, standardised)
    for module in modules:
        # Two modules have a class `InteractionNet`: a name stands with that of its module.
        place = module.__name__.rpartition(".")[2]
        found |= {f"{place}.{name}": value for name, value in vars(module).items() if inspect.isclass(value)}
    for function in (
        initialisations.lookup_normal_init,
        initialisations.lookup_uniform_init,
        activations.lookup_act,
    ):
        found[function.__name__] = function
    for kind in (nn.RNN, nn.LSTM, nn.GRU, nn.BatchNorm1d, nn.BCELoss, *OPTIMISERS.values()):
        found[f"torch.{kind.__name__}"] = kind
    return found


def encode(value: Any, where: str) -> Any:
    """A value as JSON.

    Raises:
        InputError: If it does not consist of numbers, names and known or named classes.
    """
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Path):
        return {"$path": str(value)}
    if isinstance(value, np.ndarray | Tensor):
        return {"$array": value.tolist()}
    if isinstance(value, tuple):
        return {"$tuple": [encode(v, f"{where}[{k}]") for k, v in enumerate(value)]}
    if isinstance(value, list):
        return [encode(v, f"{where}[{k}]") for k, v in enumerate(value)]
    if isinstance(value, Mapping):
        return {"$dict": [[encode(k, where), encode(v, f"{where}[{k!r}]")] for k, v in value.items()]}
    if isinstance(value, CatEmbedder):
        sizes = {"cat_names": value.cat_names, "cat_szs": value.cat_szs, "emb_szs": value.emb_szs}
        return {"$cat_embedder": sizes}
    if isinstance(value, partial):
        arguments = {"args": list(value.args), "kwargs": dict(value.keywords)}
        coded = {key: encode(v, where) for key, v in arguments.items()}
        return {"$partial": {"of": encode(value.func, where), **coded}}
    if inspect.isclass(value) or inspect.isfunction(value):
        if not value.__name__.isidentifier():
            raise InputError(f"`{where}` must be a class or function with a name to be saved; got {value.__name__}")
        return {"$name": next((name for name, one in known().items() if one is value), value.__name__)}
    raise InputError(f"`{where}` must consist of numbers, names and classes to be saved; got {type(value).__name__}")


def decode(value: Any, classes: Mapping[str, Any], where: str) -> Any:
    """A value from JSON; the inverse of `encode`.

    Raises:
        CheckpointError: If a name is not known.
    """
    if isinstance(value, list):
        return [decode(v, classes, where) for v in value]
    if not isinstance(value, dict):
        return value
    if len(value) != 1:
        raise CheckpointError(f"`{where}` holds an entry that is not known: {sorted(value)}")
    ((kind, content),) = value.items()
    if kind == "$path":
        return Path(content)
    if kind == "$array":
        return np.asarray(content, dtype=np.float64)
    if kind == "$tuple":
        return tuple(decode(v, classes, where) for v in content)
    if kind == "$dict":
        return {decode(k, classes, where): decode(v, classes, where) for k, v in content}
    if kind == "$cat_embedder":
        return CatEmbedder(**content)
    if kind == "$partial":
        parts = {key: decode(content[key], classes, where) for key in ("of", "args", "kwargs")}
        return partial(parts["of"], *parts["args"], **parts["kwargs"])
    if kind == "$name":
        for names in (classes, known()):
            if content in names:
                return names[content]
        raise CheckpointError(
            f"`{where}` names {content!r}, which is no class of the library: pass it in `classes`"
            f"{did_you_mean(str(content), known())}"
        )
    raise CheckpointError(f"`{where}` holds an entry of the unknown kind {kind!r}")


def save(builder: ModelBuilder, name: str | Path) -> None:
    """Write a description; see `ModelBuilder.save`."""
    storage.write_json(name, to_json(builder))


def to_json(builder: ModelBuilder) -> dict[str, Any]:
    """A description as JSON."""
    coded = {key: encode(getattr(builder, key), key) for key in (*_PLAIN, "cat_embedder")}
    return {"format": FORMAT, "format_version": FORMAT_VERSION, "builder": coded}


def load(name: str | Path, classes: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments of a builder; see `ModelBuilder.load`."""
    path = Path(name)
    return from_json(packing.parse_json(packing.read_bytes(path), path), classes, str(path))


def from_json(content: Any, classes: Mapping[str, Any], where: str) -> dict[str, Any]:
    """Arguments of a builder from its description.

    Raises:
        CheckpointError: If it is no description.
    """
    coded = content.get("builder") if isinstance(content, dict) and content.get("format") == FORMAT else None
    if not isinstance(coded, dict):
        raise CheckpointError(f"`{where}` must hold the description of a network, as `ModelBuilder.save` writes it")
    packing.check_version(Path(where), content.get("format_version"), FORMAT_VERSION, content.get("diffdet", "?"))
    unknown = set(coded) - {*_PLAIN, "cat_embedder"}
    if unknown:
        raise CheckpointError(f"`{where}` holds arguments that no network has: {sorted(unknown)}")
    try:
        return {key: decode(value, classes, where) for key, value in coded.items()}
    except (TypeError, KeyError, ValueError) as error:
        raise CheckpointError(f"`{where}` does not describe a network: {error}") from error
