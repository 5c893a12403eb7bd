"""Reference numbers of network blocks: builds the object of a case, loads its weights, compares what comes out.

A case of `spec/nn-numeric-cases.json` holds arguments, weights under the original state-dict names, an input and the
output. `Case.check` builds the object in float64 and in float32, with torch's default dtype set before construction as
in the original run, loads the weights strictly, and compares names, order and shapes of the state dict, the output, the
output size and the map of features.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from diffdet.nn.models.blocks.body import FullyConnected, MultiBlock
from diffdet.nn.models.blocks.conv_blocks import Conv1DBlock, Res1DBlock, ResNeXt1DBlock
from diffdet.nn.models.blocks.tail import ClassRegMulti
from diffdet.nn.models.helpers import CatEmbedder
from diffdet.nn.models.layers.self_attention import SelfAttention

TOLERANCE = {torch.float64: 1e-9, torch.float32: 2e-5}

CLASSES: dict[str, Callable[..., Any]] = {
    "FullyConnected": FullyConnected,
    "MultiBlock": MultiBlock,
    "Conv1DBlock": Conv1DBlock,
    "Res1DBlock": Res1DBlock,
    "ResNeXt1DBlock": ResNeXt1DBlock,
    "ClassRegMulti": ClassRegMulti,
    "SelfAttention": SelfAttention,
}
"""Classes that arguments may name, `{"FullyConnected": {...}}`; tests add theirs through `Case.check(classes=...)`."""


@contextmanager
def default_dtype(dtype: torch.dtype) -> Iterator[None]:
    """Torch's default dtype while something is built."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(dtype)
    try:
        yield
    finally:
        torch.set_default_dtype(before)


@functools.cache
def _read(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text(encoding="utf-8"))["cases"]


@dataclass(frozen=True)
class Case:
    """One case: its name and what the file says of it."""

    name: str
    entry: dict[str, Any] = field(repr=False)

    @classmethod
    def load(cls, shared_dir: Path, name: str) -> Case:
        """Case of a name, from the fixture `shared_dir`."""
        return cls(name, _read(shared_dir / "spec" / "nn-numeric-cases.json")[name])

    def arguments(self, classes: Mapping[str, Callable[..., Any]] = CLASSES) -> dict[str, Any]:
        """Arguments, with names of classes, embedders and recurrent layers replaced by the objects."""
        return {name: self._argument(name, value, {**CLASSES, **classes}) for name, value in self.entry["args"].items()}

    def _argument(self, name: str, value: Any, classes: Mapping[str, Callable[..., Any]]) -> Any:
        if name == "blocks":
            return [self._argument("", block, classes) for block in value]
        if name == "cat_embedder":
            return CatEmbedder(**value)
        if name == "rnn":
            return getattr(nn, value)
        if isinstance(value, dict) and len(value) == 1 and (key := next(iter(value))) in classes:
            return functools.partial(classes[key], **value[key])
        return value

    def input(self, dtype: torch.dtype) -> Tensor | tuple[Tensor, ...]:
        """Input, one tensor or a tuple (flat, matrix)."""
        value = self.entry["input"]
        if isinstance(value, dict):
            return tuple(torch.tensor(part, dtype=dtype) for part in value["tuple"])
        return torch.tensor(value, dtype=dtype)

    def output(self, dtype: torch.dtype, key: str = "output") -> Tensor:
        """Output that is expected; some cases have one more under another key."""
        return torch.tensor(self.entry[key], dtype=dtype)

    def build(
        self,
        build: Callable[..., nn.Module],
        dtype: torch.dtype,
        *,
        classes: Mapping[str, Callable[..., Any]] = CLASSES,
        **more: Any,
    ) -> nn.Module:
        """The object of the case with its weights, in the mode of the case.

        Args:
            build: Class or function that takes the arguments.
            dtype: Default dtype while it is built.
            classes: Classes that arguments may name, besides `CLASSES`.
            **more: Arguments that the case does not have, or that replace its own.
        """
        with default_dtype(dtype):
            module = build(**{**self.arguments(classes), **more})
        self.check_state_dict(module)
        weights = {
            key: torch.tensor(value, dtype=torch.float64) for key, value in self.entry.get("weights", {}).items()
        }
        tracked = {key: value for key, value in module.state_dict().items() if key.endswith("num_batches_tracked")}
        module.load_state_dict({**tracked, **weights}, strict=True)
        return module.train(self.entry["mode"] == "train")

    def check_state_dict(self, module: nn.Module) -> None:
        """Names, order and shapes are those of the original."""
        found = [[key, list(value.shape)] for key, value in module.state_dict().items()]
        assert found == self.entry["state_dict"], self.name

    def check(
        self,
        build: Callable[..., nn.Module],
        *,
        classes: Mapping[str, Callable[..., Any]] = CLASSES,
        key: str = "output",
        tolerance: Mapping[torch.dtype, float] = TOLERANCE,
        **more: Any,
    ) -> nn.Module:
        """Compare everything that the case holds, in float64 and in float32.

        Args:
            build: Class or function that takes the arguments.
            classes: Classes that arguments may name, besides `CLASSES`.
            key: Name of the expected output.
            tolerance: Largest absolute difference by dtype.
            **more: Arguments that the case does not have, or that replace its own.

        Returns:
            The module in float64.
        """
        modules = {}
        for dtype, largest in tolerance.items():
            module = modules[dtype] = self.build(build, dtype, classes=classes, **more)
            found = module(self.input(dtype))
            assert found.dtype is dtype
            torch.testing.assert_close(found, self.output(dtype, key), rtol=0, atol=largest)
            if "output_shape" in self.entry:
                assert list(found.shape) == self.entry["output_shape"]
            if "get_out_size" in self.entry:
                assert module.get_out_size() == self.entry["get_out_size"]
            if "feat_map" in self.entry:
                assert dict(module.feat_map) == self.entry["feat_map"]
        return modules[torch.float64]
