"""What ready-made callbacks do to a run."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffdet.core.errors import CheckpointError, InputError, NonFiniteError
from diffdet.loop import Callback, ClipUpdate, Every, Loop, ProgressLine, ScheduleRate, StopOnNonFinite, StopOnPlateau
from diffdet.loop.schedules import cosine, linear_warm_up, logarithmic, one_cycle


def test_every_calls_each_nth_time(line_step: Any, run_loop: Any) -> None:
    calls: list[tuple[int, str | None]] = []
    run_loop(line_step(), [Every(2, lambda state: calls.append((state.epoch, state.phase)))], n_epochs=5)
    assert calls == [(2, "train"), (4, "train")]
    steps: list[int] = []
    every = Every(4, lambda state: steps.append(state.batch), event="on_step_end", phase=None)
    run_loop(line_step(), [every], n_epochs=2)
    assert steps == [0]
    with pytest.raises(InputError, match="`n` must be at least 1"):
        Every(0, print)


class Reports(Callback):
    """Reports given losses of validation."""

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses

    def on_epoch_end(self) -> None:
        if self.state.phase == "valid":
            self.state.metrics["loss"] = self.losses[self.state.epoch - 1]


@pytest.mark.parametrize(
    ("losses", "options", "epochs"),
    [
        ([5, 4, 3, 2, 1, 0], {}, 6),
        ([5, 4, 4, 4, 1, 0], {}, 4),
        ([5, 4, 4.5, 3, 3, 3], {}, 6),
        ([5, 4.9, 4.8, 4, 4, 4], {"min_change": 0.5}, 3),
        ([1, 2, 3, 3, 3, 9], {"lower_is_better": False}, 5),
        ([math.nan] * 6, {}, 3),
    ],
)
def test_stop_on_plateau(
    losses: list[float], options: dict[str, Any], epochs: int, line_step: Any, run_loop: Any
) -> None:
    loop = run_loop(line_step(), [Reports(losses), StopOnPlateau(patience=2, **options)], n_epochs=6)
    assert loop.state.epoch == epochs
    assert ("has not become better" in loop.state.stop_reason) == (epochs < 6 or loop.state.stop is True)


def test_stop_on_plateau_checks_its_arguments(line_step: Any, run_loop: Any) -> None:
    with pytest.raises(InputError, match="`patience`"):
        StopOnPlateau(patience=0)
    with pytest.raises(InputError, match="`phase`"):
        StopOnPlateau(phase="test")
    with pytest.raises(InputError, match=r"`metric` must be one of \['loss', 'size'\]; got 'los'"):
        run_loop(line_step(), [StopOnPlateau("los")])


def test_clip_update_limits_every_element(line_step: Any, run_loop: Any) -> None:
    step = line_step(lr=10.0)
    start = step.model.weight.detach().clone()
    moves: list[Tensor] = []

    class Watch(Callback):
        def on_backwards_end(self) -> None:
            self.before = step.model.weight.detach().clone()

        def on_step_end(self) -> None:
            moves.append((step.model.weight.detach() - self.before).abs())

    run_loop(step, [ClipUpdate(0.01), Watch()], n_epochs=1)
    assert len(moves) == 3
    assert all(bool((move <= 0.01 + 1e-6).all()) for move in moves)
    assert torch.allclose(torch.stack(moves).amax(), torch.tensor(0.01), atol=1e-6), "the limit is reached"
    assert not torch.equal(step.model.weight, start)

    step = line_step(lr=10.0)
    bias = step.model.bias.detach().clone()
    run_loop(step, [ClipUpdate({"weight": 0.01})], n_epochs=1)
    assert (step.model.bias - bias).abs() > 1, "optimisers that are not named move freely"
    with pytest.raises(InputError, match="`weight` must be greater than 0"):
        ClipUpdate({"weight": 0.0})


# ---- not finite
class Inject(Callback):
    """Puts a bad number somewhere at the n-th update."""

    def __init__(self, where: str, value: float, at: int = 2) -> None:
        self.where, self.value, self.left = where, value, at

    def _here(self, where: str) -> bool:
        return self.where == where and self.left == 1

    def on_backwards_begin(self) -> None:
        update = self.state.update
        assert update is not None
        if self._here("loss"):
            assert update.loss is not None
            update.loss = update.loss * self.value

    def on_backwards_end(self) -> None:
        update = self.state.update
        assert update is not None
        if self._here("gradient"):
            update.parameters[1].grad[-1] = self.value  # type: ignore[index]
        if self._here("rate"):
            update.optimisers["weight"].param_groups[0]["lr"] = self.value
        self.left -= 1


class Watch(Callback):
    def __init__(self, step: Any) -> None:
        self.step, self.bits = step, []
        self.states: list[str] = []

    def on_sample(self) -> None:
        self.bits.append([p.detach().clone() for p in self.step.model.parameters()])
        self.states.append(repr(self.step.optimisers["weight"].state_dict()["state"]))


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("loss", "after backward: loss (nan|inf|-inf)"),
        ("gradient", r"after backward: .*gradients of bias\[0\]"),
        ("rate", r"after optimiser step: parameters weight\[0\]"),
    ],
)
def test_what_is_not_finite_never_reaches_the_parameters(
    where: str, says: str, value: float, line_step: Any, data: Callable[[int], list[Tensor]]
) -> None:
    step = line_step()
    watch = Watch(step)
    loop: Loop[Tensor] = Loop(step, [watch, Inject(where, value), StopOnNonFinite()])
    with pytest.raises(NonFiniteError, match=says) as caught:
        loop.run(data, n_epochs=2)
    assert "epoch 1, phase train, batch 1" in str(caught.value)
    assert caught.value.details["batch"] == 1
    before, after = watch.bits[-1], list(step.model.parameters())
    assert len(watch.bits) == 2, "the run ended in the same step"
    assert all(torch.equal(a, b) for a, b in zip(before, after, strict=True)), "parameters equal those before the step"
    assert repr(step.optimisers["weight"].state_dict()["state"]) == watch.states[-1]


def test_spoilt_steps_may_be_survived(line_step: Any, data: Callable[[int], list[Tensor]]) -> None:
    step = line_step()
    loop: Loop[Tensor] = Loop(step, [Inject("gradient", math.nan), StopOnNonFinite(n_in_a_row=2)])
    assert loop.run(data, n_epochs=2).stop_reason == "all 2 epochs are done"
    assert step.updates[0].n_steps == 5
    two = [Inject("gradient", math.nan, 2), Inject("gradient", math.nan, 3)]
    with pytest.raises(NonFiniteError, match="Spoilt steps in a row: 2"):
        Loop(line_step(), [*two, StopOnNonFinite(n_in_a_row=2)]).run(data, n_epochs=2)
    with pytest.raises(InputError, match="`n_in_a_row`"):
        StopOnNonFinite(0)


# ---- schedules
def test_schedules_are_exact_at_their_ends() -> None:
    assert cosine(0.0, 0.1, 0.3) == 0.1
    assert cosine(1.0, 0.1, 0.3) == 0.3
    assert cosine(0.5, 1.0, 3.0) == pytest.approx(2.0)
    assert [one_cycle(p, 1.0, 10.0, 0.1, 0.25) for p in (0.0, 0.25, 1.0)] == [1.0, 10.0, 0.1]
    assert one_cycle(1.0, 1.0, 10.0, 0.1, 1.0) == 10.0
    assert one_cycle(0.0, 1.0, 10.0, 0.1, 0.0) == 10.0
    assert [linear_warm_up(p, 0.2) for p in (0.0, 0.1, 0.2, 1.0)] == [0.0, 0.5, 1.0, 1.0]
    assert logarithmic(0.5, 1.0, 0.01) == pytest.approx(0.1)
    assert (logarithmic(-1, 2.0, 3.0), logarithmic(2, 2.0, 3.0)) == (2.0, 3.0)
    with pytest.raises(InputError, match="`end` must be greater than 0"):
        logarithmic(0.5, 1.0, 0.0)


def test_one_cycle_rises_then_falls() -> None:
    values = [one_cycle(i / 100, 1.0, 10.0, 0.1, 0.3) for i in range(101)]
    assert values[:31] == sorted(values[:31])
    assert values[30:] == sorted(values[30:], reverse=True)


def test_scheduled_rates(line_step: Any, run_loop: Any) -> None:
    step = line_step(lr=2.0)
    seen: list[tuple[float, float]] = []

    class Rates(Callback):
        def on_backwards_end(self) -> None:
            seen.append(tuple(o.param_groups[0]["lr"] for o in step.optimisers.values()))  # type: ignore[arg-type]

    run_loop(step, [ScheduleRate(lambda p: 1.0 - p, 3, ["weight"]), Rates()], n_epochs=2)
    assert [weight for weight, _ in seen] == pytest.approx([2.0, 1.6, 1.2, 0.8, 0.4, 0.0])
    assert {bias for _, bias in seen} == {2.0}
    with pytest.raises(InputError, match=r"`optimisers` must be among \['bias', 'weight'\]; got \['weigth'\]"):
        run_loop(line_step(), [ScheduleRate(lambda p: p, 3, ["weigth"])])


# ---- progress
class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_progress_is_one_plain_line_per_interval(line_step: Any, run_loop: Any) -> None:
    ticks = iter(range(1000))
    stream = io.StringIO()
    run_loop(line_step(), [ProgressLine(5.0, stream, lambda: float(next(ticks)))], n_epochs=3)
    lines = stream.getvalue().splitlines()
    assert 2 <= len(lines) <= 4
    assert all(line.startswith("epoch ") for line in lines[:-1])
    assert lines[-1].startswith("all 3 epochs are done (0:")


def test_progress_in_a_terminal_tells_every_epoch(line_step: Any, run_loop: Any) -> None:
    stream = Terminal()
    run_loop(line_step(), [ProgressLine(stream=stream)], n_epochs=2)
    assert stream.getvalue().count("/2 train  loss") >= 2
    assert "all 2 epochs are done" in stream.getvalue()
    with pytest.raises(InputError, match="`interval`"):
        ProgressLine(0.0)


def test_the_state_of_another_callback_is_refused() -> None:
    with pytest.raises(CheckpointError, match="`StopOnPlateau` holds"):
        StopOnPlateau().load_state_dict({"count": 1})
