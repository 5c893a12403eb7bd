"""When things happen, and who is told."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from diffdet.core.errors import InputError
from diffdet.loop import Callback, Loop, LoopState, Update

UPDATE = ["on_backwards_begin", "on_backwards_end", "on_step_end"]


def test_order_of_events_of_a_run(line_step: Any, record: Any, run_loop: Any) -> None:
    callback, seen = record("on_sample")
    run_loop(line_step(), [callback])
    epoch = ["on_epoch_begin", *["on_sample", *UPDATE] * 3, "on_epoch_end"]
    validation = ["on_epoch_begin", *["on_sample"] * 2, "on_epoch_end"]
    assert seen == ["on_train_begin", *[*epoch, *validation] * 2, "on_train_end"]


def test_two_players_share_one_loop(adversarial_step: Any, record: Any) -> None:
    class WhichUpdate(Callback):
        def __init__(self) -> None:
            self.names: list[str] = []

        def on_step_end(self) -> None:
            assert self.state.update is not None
            self.names += list(self.state.update.optimisers)

    callback, seen = record("on_critic_done")
    which = WhichUpdate()
    step = adversarial_step(k=2)
    state = Loop(step, [callback, which]).run([torch.ones(4)], n_epochs=3)
    one = [*UPDATE * 2, "on_critic_done", *UPDATE]
    assert seen == ["on_train_begin", *["on_epoch_begin", *one, "on_epoch_end"] * 3, "on_train_end"]
    assert which.names == ["critic", "critic", "generator"] * 3
    assert [update.n_steps for update in step.updates] == [6, 3]
    assert step.average.item() != 3.0, "after_step ran"
    assert state.history.rows[0]["learning_rates"] == {"critic": 0.1, "generator": 0.1}


def test_validation_records_no_graph_and_evaluates(line_step: Any, run_loop: Any) -> None:
    step = line_step()
    run_loop(step, n_epochs=1)
    assert set(step.grad_modes) == {("train", True, True), ("valid", False, False)}


def test_evaluation_records_gradients_where_the_step_needs_them(line_step: Any, valid_data: list[Tensor]) -> None:
    step = line_step()
    step.needs_grad = True
    Loop(step).predict(valid_data)
    assert step.grad_modes == [("test", False, True)] * 2


def test_prediction_fires_its_events(line_step: Any, record: Any, valid_data: list[Tensor]) -> None:
    callback, seen = record("on_sample")
    state = Loop(line_step(), [callback]).predict(valid_data)
    assert seen == ["on_pred_begin", "on_sample", "on_sample", "on_pred_end"]
    assert state.metrics["size"] == 8.0


def test_metrics_are_means_over_the_batches_of_a_phase(line_step: Any) -> None:
    step = line_step()
    state = Loop(step).run([torch.ones(4, 2), torch.ones(2, 2)], [torch.ones(1, 2)], n_epochs=1)
    train, valid = state.history.rows
    assert (train["size"], valid["size"]) == (3.0, 1.0)
    assert (train["epoch"], train["phase"], valid["phase"]) == (1, "train", "valid")
    assert len(state.history.seconds) == 2
    assert state.history.column("size", "valid") == [1.0]
    assert state.history.column("size") == [3.0, 1.0]
    assert state.stop_reason == "all 1 epochs are done"


def test_callbacks_may_add_metrics(line_step: Any, run_loop: Any) -> None:
    class Adds(Callback):
        def on_epoch_end(self) -> None:
            self.state.metrics["answer"] = 42.0

    loop = run_loop(line_step(), [Adds()], n_epochs=1)
    assert [row["answer"] for row in loop.state.history.rows] == [42.0, 42.0]


def test_frozen_updates_compute_gradients_but_leave_the_parameters(line_step: Any, record: Any, run_loop: Any) -> None:
    step = line_step()
    before = [p.detach().clone() for p in step.model.parameters()]
    afterwards: list[int] = []
    step.updates[0].after_step = lambda: afterwards.append(1)
    step.updates[0].frozen = True
    callback, seen = record()
    loop = run_loop(step, [callback])
    assert all(torch.equal(a, b) for a, b in zip(before, step.model.parameters(), strict=True))
    assert all(p.grad is not None for p in step.model.parameters())
    assert not afterwards
    assert seen.count("on_step_end") == 6
    assert [row["frozen"] for row in loop.state.history.rows] == [True] * 4


def test_stop_ends_the_run_after_the_epoch(line_step: Any, run_loop: Any) -> None:
    class Stops(Callback):
        def on_step_end(self) -> None:
            self.state.stop = True

    loop = run_loop(line_step(), [Stops()], n_epochs=5)
    assert [(row["epoch"], row["phase"]) for row in loop.state.history.rows] == [(1, "train"), (1, "valid")]
    assert loop.state.stop_reason == "a callback asked to stop"


def test_a_hook_that_no_event_calls_is_refused(line_step: Any) -> None:
    class Typo(Callback):
        def on_epoch_start(self) -> None:
            pass

    with pytest.raises(InputError, match=r"`Typo.on_epoch_start` is not an event of this loop, so it would never be c"):
        Loop(line_step(), [Typo()])

    class Near(Callback):
        def on_epoch_ends(self) -> None:
            pass

    with pytest.raises(InputError, match=r"Did you mean 'on_epoch_end'"):
        Loop(line_step(), [Near()])


def test_a_step_must_declare_its_events(line_step: Any) -> None:
    step = line_step()
    step.events = ()
    with pytest.raises(InputError, match="`on_sample` is not an event"):
        Loop(step).run([torch.ones(1, 2)], n_epochs=1)


def test_callbacks_are_released_however_the_run_ends(line_step: Any, data: Callable[[int], list[Tensor]]) -> None:
    released: list[str] = []

    class Holds(Callback):
        def release(self) -> None:
            released.append("yes")

    Loop(line_step(), [Holds()]).run(data, n_epochs=1)
    step = line_step()
    step.model = None
    loop: Loop[Tensor] = Loop(step, [Holds()])
    with pytest.raises(AttributeError):
        loop.run(data, n_epochs=1)
    assert released == ["yes", "yes"]
    assert loop.state.stop_reason is not None
    assert loop.state.stop_reason.startswith("AttributeError: ")


@pytest.mark.parametrize("n_epochs", [0, -1])
def test_a_run_needs_an_epoch(line_step: Any, n_epochs: int) -> None:
    with pytest.raises(InputError, match="`n_epochs` must be at least 1"):
        Loop(line_step()).run([], n_epochs=n_epochs)


def test_a_loss_without_parameters_is_refused() -> None:
    update = Update(torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0))
    with pytest.raises(InputError, match="`loss` must be a single number that depends on the parameters"):
        update(torch.ones(()), lambda event, *, update=None: None)


def test_state_refuses_unknown_fields() -> None:
    with pytest.raises(InputError, match=r"`epochs` is not a field of LoopState. Did you mean 'epoch'"):
        LoopState(epochs=3)
    state = LoopState(epoch=2, n_epochs=5, phase="train")
    assert repr(state) == "LoopState(epoch 2 of 5, train, batch 0)"


def test_a_callback_outside_of_a_loop_says_so() -> None:
    with pytest.raises(InputError, match="not attached to a loop"):
        _ = Callback().state
