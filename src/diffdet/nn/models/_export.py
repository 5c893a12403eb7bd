"""Networks as programs of `torch.export` and files of ONNX, with a batch axis of any size."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from diffdet.core import storage
from diffdet.core.errors import InputError
from diffdet.core.extras import require
from diffdet.nn.training.batches import Inputs, to_rows

if TYPE_CHECKING:
    from diffdet.nn.models.model import Model

__all__ = ["example_inputs", "export_program", "export_to_onnx"]


class _Exported(nn.Module):
    """The network with its inputs one by one, as exported programs take them."""

    def __init__(self, net: nn.Module, n_inputs: int, *, mask: bool) -> None:
        super().__init__()
        self.net = net
        self.n_inputs = n_inputs
        self.mask = mask

    def forward(self, *parts: Tensor) -> Tensor:
        x: Any = parts[0] if self.n_inputs == 1 else (parts[0], parts[1])
        return self.net(x, mask=parts[self.n_inputs]) if self.mask else self.net(x)


def example_inputs(model: Model, bs: int, *, mask: bool) -> tuple[Inputs, Tensor | None]:
    """Inputs of the right shape; see `Model.example_inputs`."""
    head = model.head
    objects = _objects(head)
    if mask and not objects:
        raise InputError(f"`mask` needs a head with objects; {type(head).__name__} has none")
    maker = getattr(head, "example_inputs", None)
    if callable(maker):
        x: Any = maker(bs)
    elif model.input_mask is not None:
        x = torch.zeros(bs, len(model.input_mask))
    else:
        x = torch.zeros(bs, n_flat_columns(head))
    x = (
        tuple(part.to(model.device, model.dtype) for part in x)
        if isinstance(x, tuple)
        else x.to(model.device, model.dtype)
    )
    return x, torch.ones(bs, objects, dtype=torch.bool, device=model.device) if mask else None


def behind(head: Any) -> Any:
    """The head behind fixed scales, or the head itself."""
    return getattr(head, "head", head)


def n_flat_columns(head: Any) -> int:
    """How many columns a head takes as flat input; heads of objects count their cells among the continuous ones."""
    cells = head.n_matrix_in if hasattr(behind(head), "matrix_head") else 0
    return head.n_cont_in + head.n_cat_in + cells


def _objects(head: Any) -> int:
    """How many objects a head takes; 0 where it knows none."""
    for part in (head, getattr(behind(head), "matrix_head", None)):
        vecs = getattr(part, "vecs", None)
        if vecs:
            return len(vecs)
    return 0


def _parts(model: Model, mask: bool, inputs: Any) -> tuple[list[str], tuple[Tensor, ...]]:
    """Names and values of what the exported network takes."""
    x, m = example_inputs(model, 3, mask=mask)
    if inputs is not None:
        rows = to_rows(inputs, dtype=model.dtype).map(lambda t: t.to(model.device))
        if len(rows) < 2:
            raise InputError(f"`inputs` must have at least 2 samples to export with; got {len(rows)}")
        x = rows.x
        m = None if m is None else m[:1].expand(len(rows), -1).contiguous()
    names = ["flat", "matrix"] if isinstance(x, tuple) else ["x"]
    values = x if isinstance(x, tuple) else (x,)
    return (names, values) if m is None else ([*names, "mask"], (*values, m))


@contextmanager
def _evaluating(net: nn.Module) -> Iterator[None]:
    """The network in evaluation mode and without gradients, for the time of the block."""
    training = net.training
    net.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        net.train(training)


def export_program(model: Model, *, mask: bool, inputs: Any) -> torch.export.ExportedProgram:
    """The network as a program; see `Model.export`."""
    names, values = _parts(model, mask, inputs)
    wrapped = _Exported(model.net, len(values) - mask, mask=mask)
    batch = torch.export.Dim("batch")
    with _evaluating(model.net):
        wrapped.eval()
        return torch.export.export(wrapped, values, dynamic_shapes={"parts": tuple({0: batch} for _ in names)})


def export_to_onnx(model: Model, name: str | Path, *, mask: bool, inputs: Any, opset: int) -> Path:
    """The network as a file of ONNX; see `Model.export_to_onnx`."""
    what = "exporting networks to ONNX"
    require("onnx", "onnx", what)
    require("onnxscript", "onnx", what)
    path = Path(name)
    path = path if path.suffix == ".onnx" else path.with_name(path.name + ".onnx")
    names, values = _parts(model, mask, inputs)
    wrapped = _Exported(model.net, len(values) - mask, mask=mask)
    with _evaluating(model.net), _quiet():
        wrapped.eval()
        program = torch.onnx.export(
            wrapped,
            values,
            dynamo=True,
            input_names=names,
            output_names=["pred"],
            dynamic_shapes={"parts": tuple({0: torch.export.Dim("batch")} for _ in names)},
            opset_version=opset,
            verbose=False,
        )
    assert program is not None
    with storage.replacing(path) as temporary:
        program.save(str(temporary))
    return path


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's notes on packages that are not needed, and on axes that share a name on purpose."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", DeprecationWarning)
            warnings.simplefilter("ignore", FutureWarning)
            warnings.filterwarnings("ignore", message="# The axis name")
            yield
    finally:
        logger.setLevel(level)
