"""Any network as a graph of its own: `torch.export` and ONNX, for any number of events a batch, masks included.

For blocks that are used alone; a `Model` has methods of the same names.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffdet.core import storage
from diffdet.core.errors import InputError, NotSupportedError
from diffdet.core.extras import require

__all__ = ["export_program", "export_to_onnx", "input_names"]

NetworkInput = Tensor | tuple[Tensor, Tensor]
"""Flat columns, a matrix, or both."""


def input_names(x: NetworkInput, mask: Tensor | None = None) -> list[str]:
    """Names of the inputs of an exported network.

    Args:
        x: Example of the input.
        mask: Example of the mask, or None if the exported network takes none.

    Returns:
        ``x``, or ``flat`` and ``matrix`` for a tuple; then ``mask``.
    """
    return [*(["flat", "matrix"] if isinstance(x, tuple) else ["x"]), *(["mask"] if mask is not None else [])]


def export_program(net: nn.Module, x: NetworkInput, mask: Tensor | None = None) -> torch.export.ExportedProgram:
    """The network as a program of `torch.export` for any number of events a batch.

    The network is traced in evaluation mode and put back into the modes that it was in.

    Args:
        net: The network, called as ``net(x)`` or ``net(x, mask)``.
        x: Example of the input: what matters is shape, dtype and device.
        mask: Example of the mask; None for a program that takes none.

    Returns:
        The program; ``program.module()(x)`` or ``(x, mask)`` runs it.

    Raises:
        InputError: If the examples have different numbers of events.
        NotSupportedError: If the network cannot be traced.
    """
    arguments, shapes = _examples(x, mask)
    with _evaluating(net), _quiet():
        try:
            return torch.export.export(net, arguments, dynamic_shapes=shapes, strict=False)
        except Exception as error:
            raise NotSupportedError(f"{type(net).__name__} cannot be traced by torch.export: {error}") from error


def export_to_onnx(
    net: nn.Module,
    path: Path | str,
    x: NetworkInput,
    mask: Tensor | None = None,
    *,
    output_name: str = "y",
    opset: int | None = None,
) -> Path:
    """Write the network as an ONNX file for any number of events a batch.

    Inputs are called ``x``, or ``flat`` and ``matrix`` for a tuple, and ``mask`` if there is one; axis 0 of each is
    called ``batch``. The file is complete or not there: it is written beside its place and renamed.

    Args:
        net: The network, called as ``net(x)`` or ``net(x, mask)``.
        path: The file; its folder is made when absent.
        x: Example of the input: what matters is shape, dtype and device.
        mask: Example of the mask; None for a network without that input.
        output_name: Name of the output.
        opset: Version of ONNX's operators; torch's choice by default.

    Returns:
        The file.

    Raises:
        MissingExtraError: If onnx or onnxscript is not installed.
        InputError: If the examples have different numbers of events.
        NotSupportedError: If the network cannot be traced or written in ONNX's operators.
        StorageError: If the file cannot be written.
    """
    for library in ("onnx", "onnxscript"):
        require(library, "onnx", "writing ONNX files")
    program = export_program(net, x, mask)
    target = Path(path)
    with _quiet():
        try:
            made = torch.onnx.export(
                program,
                dynamic_shapes=_examples(x, mask)[1],  # which name the axis
                input_names=input_names(x, mask),
                output_names=[output_name],
                opset_version=opset,
                dynamo=True,
                verbose=False,
            )
        except Exception as error:
            raise NotSupportedError(f"{type(net).__name__} cannot be written in ONNX's operators: {error}") from error
        assert made is not None
        made.model.producer_name = "diffdet"
        storage.make_folder(target.parent)
        with storage.replacing(target) as temporary:
            made.save(str(temporary), external_data=False)
    return target


def _examples(x: NetworkInput, mask: Tensor | None) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Arguments to trace with and which of their axes may vary.

    Two events at least: a tracer takes a size of 1 for a constant.
    """
    parts = [*(x if isinstance(x, tuple) else (x,)), *([] if mask is None else [mask])]
    if len({part.shape[0] for part in parts}) != 1:
        sizes = ", ".join(
            f"{part.shape[0]} in `{name}`" for name, part in zip(input_names(x, mask), parts, strict=True)
        )
        raise InputError(f"examples must hold the same number of events; got {sizes}")
    if not parts[0].shape[0]:
        raise InputError("examples must hold at least one event")
    grown = [torch.cat([part, part]) if part.shape[0] == 1 else part for part in parts]
    batch = torch.export.Dim("batch")
    if isinstance(x, tuple):
        arguments: list[Any] = [tuple(grown[:2])]
        shapes: list[Any] = [({0: batch}, {0: batch})]
    else:
        arguments, shapes = [grown[0]], [{0: batch}]
    if mask is not None:
        arguments.append(grown[-1])
        shapes.append({0: batch})
    return tuple(arguments), tuple(shapes)


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradient; every part goes back into the mode that it was in."""
    modes = {part: part.training for part in net.modules()}
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for part, mode in modes.items():
            part.training = mode


@contextmanager
def _quiet() -> Iterator[None]:
    """Without what the exporters say about themselves."""
    talkers = [logging.getLogger(name) for name in ("torch.onnx", "onnxscript", "onnx_ir")]
    levels = [talker.level for talker in talkers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for talker in talkers:
            talker.setLevel(logging.ERROR)
        try:
            yield
        finally:
            for talker, level in zip(talkers, levels, strict=True):
                talker.setLevel(level)
