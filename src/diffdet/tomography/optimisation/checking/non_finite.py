"""Where a number that is not finite comes from: the operation that made it, the line of code, the volume and the muon.

Forward, every operation is watched, and the chain of tensors that are not finite is followed back from the loss to the
operation that made the first one of finite numbers; values that were masked away are in no such chain. Backward, the
first step that turns a finite gradient into one that is not is named after the operation whose derivative it is.
"""

from __future__ import annotations

import linecache
import re
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode, resolve_name

from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.checking.replay import ReplayedUpdate

__all__ = ["NonFinite", "find_non_finite"]

_TORCH = str(Path(torch.__file__).parent)
_OURS = str(Path(__file__).resolve().parents[4])
_STACK_LINE = re.compile(r'File "(?P<file>[^"]+)", line (?P<line>\d+), in (?P<function>[^\n]+)')


@dataclass(frozen=True)
class NonFinite:
    """The first operation that gave something that is not finite.

    Attributes:
        when: ``"forward"`` while the loss was computed, ``"backward"`` while its gradient was.
        value: ``"nan"`` or ``"inf"``.
        operation: Name of the operation, or of its derivative.
        file: File of the line that called it, the innermost outside torch.
        line: Number of the line.
        function: Function that the line stands in.
        code: The line.
        volume: Number of the volume in its update; None where the operation belongs to no single one.
        muon: Number of the first muon concerned in its stream; None where it does not belong to a single muon.
        replay_key: Key of the random stream of these muons.
    """

    when: str
    value: str
    operation: str
    file: str = ""
    line: int = 0
    function: str = ""
    code: str = ""
    volume: int | None = None
    muon: int | None = None
    replay_key: tuple[int | str, ...] | None = None

    def __str__(self) -> str:
        what = f"{self.operation} gave {self.value}"
        if self.when == "backward":
            what = f"the gradient became {self.value} in {self.operation}"
        if self.file:
            what += f", at {self.file}:{self.line} in {self.function}: {self.code}"
        whose = [f"volume {self.volume}"] if self.volume is not None else []
        whose += [f"muon {self.muon}"] if self.muon is not None else []
        return f"{what} ({', '.join(whose)})" if whose else what

    def as_mapping(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self) | {
            "replay_key": None if self.replay_key is None else list(self.replay_key),
            "text": str(self),
        }


def find_non_finite(update: ReplayedUpdate, number: int, parameters: Sequence[Tensor]) -> NonFinite | None:
    """Compute an update's loss and gradient once more, slowly, and find what is not finite.

    All muons of a volume fly in one batch, so that the place of a muon in a tensor says which one it is.

    Args:
        update: The loss.
        number: Number of the update.
        parameters: What the gradient is taken by.

    Returns:
        The first operation; None where loss and gradient are finite.
    """
    watch = _Watch()
    tracer = _Tracer(watch)
    mu_bs, update.step.mu_bs = update.step.mu_bs, update.step.n_mu_per_volume
    try:
        with torch.autograd.set_detect_anomaly(True, check_nan=False), tracer, torch.enable_grad():
            loss = update(number, watch)
    finally:
        update.step.mu_bs = mu_bs
    if not bool(torch.isfinite(loss.detach())):
        return tracer.origin(loss)
    return _first_in_backward(loss, parameters, watch)


@dataclass
class _Passage:
    """One batch of muons through one volume."""

    sequence: int
    volume: int | None
    key: tuple[int | str, ...] | None
    ids: list[Tensor]

    def muon(self, bad: Tensor) -> int | None:
        """Number of the first muon whose entries are True, if an axis of the tensor counts these muons."""
        for ids in reversed(self.ids):
            for axis in reversed(range(bad.ndim)):
                if bad.shape[axis] == len(ids) > 0:
                    others = [k for k in range(bad.ndim) if k != axis]
                    found = (bad.any(others) if others else bad).nonzero()
                    return int(ids[int(found[0])])
        return None


class _Watch(Callback):
    """Notes which muons are in flight, and when in the order of operations."""

    transient = ("passages",)

    def __init__(self) -> None:
        self.passages: list[_Passage] = []

    def on_mu_batch_begin(self) -> None:
        """A batch begins."""
        fit = self._fit
        assert fit.mu is not None
        self.passages.append(_Passage(_sequence_number(), fit.volume_id, fit.replay_key, [fit.mu.ids]))

    def on_scatter_end(self) -> None:
        """Muons that could not be used are gone."""
        fit = self._fit
        assert fit.mu is not None
        self.passages[-1].ids.append(fit.mu.ids)

    def on_volume_batch_end(self) -> None:
        """What follows belongs to all volumes."""
        self.passages.append(_Passage(_sequence_number(), None, None, []))

    @property
    def current(self) -> _Passage | None:
        """The passage in progress."""
        return self.passages[-1] if self.passages else None

    def at(self, sequence: int) -> _Passage | None:
        """The passage in which an operation was recorded."""
        return next((p for p in reversed(self.passages) if p.sequence <= sequence), None)


def _sequence_number() -> int:
    """Number that autograd gives to the next operation."""
    with torch.enable_grad():
        node: Any = torch.zeros((), requires_grad=True).clone().grad_fn
    return int(node._sequence_nr())


# ------------------------------------------------------------------------------------------------------------- forward
@dataclass
class _Made:
    """A tensor that is not finite, how it was made, and of which others."""

    tensor: Tensor
    operation: str
    parents: list[_Made]
    frame: tuple[str, int, str] | None
    passage: _Passage | None


class _Tracer(TorchFunctionMode):
    """Notes every operation that gives something that is not finite."""

    def __init__(self, watch: _Watch) -> None:
        super().__init__()
        self._watch = watch
        self._bad: dict[int, _Made] = {}

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        del types
        given = list(_tensors((args, kwargs or {})))
        parents = [self._bad[id(t)] for t in given if id(t) in self._bad and not _finite(t)]
        out = func(*args, **(kwargs or {}))
        name = getattr(func, "__name__", "")
        changed = given[:1] if name == "__setitem__" else []
        for tensor in (*_tensors(out), *changed):
            if not _finite(tensor):
                frame = None if parents else _calling_line(sys._getframe(1))
                operation = resolve_name(func) or name
                self._bad[id(tensor)] = _Made(tensor, operation, parents, frame, self._watch.current)
        return out

    def origin(self, loss: Tensor) -> NonFinite:
        """Follow a tensor back to the operation that first gave something that is not finite."""
        made = self._bad.get(id(loss))
        if made is None:  # it went through plain numbers on its way
            made = next((m for m in self._bad.values() if not m.parents), None)
        if made is None:
            return NonFinite("forward", _kind(loss), "the loss")
        seen: set[int] = set()
        while made.parents and id(made) not in seen:
            seen.add(id(made))
            made = made.parents[0]
        bad = ~torch.isfinite(made.tensor.detach())
        return _report("forward", made.operation, _kind(made.tensor), bad, made.frame, made.passage)


def _tensors(value: Any) -> Iterator[Tensor]:
    """All tensors in nested arguments or results."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, dict):
        for inner in value.values():
            yield from _tensors(inner)
    elif isinstance(value, (list, tuple)):
        for inner in value:
            yield from _tensors(inner)


def _finite(tensor: Tensor) -> bool:
    return not tensor.is_floating_point() or bool(torch.isfinite(tensor.detach()).all())


def _kind(tensor: Tensor) -> str:
    return "nan" if bool(torch.isnan(tensor.detach()).any()) else "inf"


def _calling_line(frame: FrameType | None) -> tuple[str, int, str] | None:
    """The innermost line outside torch and this module."""
    while frame is not None:
        file = frame.f_code.co_filename
        if not file.startswith(_TORCH) and file != __file__:
            return file, frame.f_lineno, frame.f_code.co_name
        frame = frame.f_back
    return None


def _report(
    when: str,
    operation: str,
    value: str,
    bad: Tensor | None,
    frame: tuple[str, int, str] | None,
    passage: _Passage | None,
) -> NonFinite:
    file, line, function = frame or ("", 0, "")
    return NonFinite(
        when,
        value,
        operation,
        _short(file),
        line,
        function,
        linecache.getline(file, line).strip() if file else "",
        passage.volume if passage is not None else None,
        passage.muon(bad) if passage is not None and bad is not None else None,
        passage.key if passage is not None else None,
    )


def _short(file: str) -> str:
    """A path below the package as it is imported; any other as it is."""
    return file.removeprefix(_OURS).lstrip("/\\") if file.startswith(_OURS) else file


# ------------------------------------------------------------------------------------------------------------ backward
def _first_in_backward(loss: Tensor, parameters: Sequence[Tensor], watch: _Watch) -> NonFinite | None:
    """The first derivative that turns finite gradients into others."""
    found: list[tuple[Any, Tensor]] = []
    handles: list[Any] = []

    def look(node: Any) -> Callable[[Any, Any], None]:
        def hook(outgoing: Sequence[Tensor | None], incoming: Sequence[Tensor | None]) -> None:
            if found or not all(_finite(g) for g in incoming if g is not None):
                return
            bad = next((g for g in outgoing if g is not None and not _finite(g)), None)
            if bad is not None:
                found.append((node, bad.detach()))

        return hook

    handles += [node.register_hook(look(node)) for node in _nodes(loss.grad_fn)]
    gradients = torch.autograd.grad(loss, list(parameters), allow_unused=True)
    for handle in handles:
        handle.remove()
    if found:
        node, bad = found[0]
        stack = node.metadata.get("traceback_") or []
        operation = re.sub(r"\d*$", "", type(node).__name__.removesuffix("Backward0")) or type(node).__name__
        passage = watch.at(node._sequence_nr())
        return _report("backward", operation, _kind(bad), ~torch.isfinite(bad), _line_of(stack), passage)
    bad_gradient = next((g for g in gradients if g is not None and not _finite(g)), None)
    return None if bad_gradient is None else NonFinite("backward", _kind(bad_gradient), "the sum of the gradients")


def _nodes(root: Any) -> list[Any]:
    """Every node of a graph."""
    found: dict[Any, None] = {}
    waiting = [root]
    while waiting:
        node = waiting.pop()
        if node is None or node in found:
            continue
        found[node] = None
        waiting += [following for following, _ in node.next_functions]
    return list(found)


def _line_of(stack: Sequence[str]) -> tuple[str, int, str] | None:
    """The innermost line outside torch and this module, of a formatted stack."""
    for entry in reversed(stack):
        match = _STACK_LINE.search(entry)
        if match and not match["file"].startswith(_TORCH) and match["file"] != __file__:
            return match["file"], int(match["line"]), match["function"].strip()
    return None
