"""A run that was interrupted anywhere ends as one that was not, to the last bit."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from diffdet.core import storage
from diffdet.core.errors import CheckpointError, FileDamagedError, InputError, NonFiniteError, VersionError
from diffdet.loop import Callback, Checkpoints, Every, Loop, ScheduleRate, StopOnNonFinite, StopOnPlateau
from diffdet.loop.interrupts import Interruptible, exit_code
from diffdet.loop.schedules import one_cycle

N_EPOCHS = 4
BATCHES = 5 * N_EPOCHS  # three of training and two of validation


class Kill(BaseException):
    """Ends a run without any of its own code running."""


class KillAt(Callback):
    """Kills the run at the n-th sample, which no checkpoint knows of."""

    transient = ("left",)

    def __init__(self, at: int) -> None:
        self.left = at

    def on_sample(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Kill


def callbacks() -> list[Callback]:
    """Callbacks with a memory."""
    return [
        ScheduleRate(lambda p: one_cycle(p, 0.1, 1.0, 0.01, 0.3), updates_per_epoch=3),
        StopOnPlateau(patience=3, min_change=0.01),
        Every(2, lambda state: state.metrics.update(second=1.0)),
        StopOnNonFinite(),
    ]


def comparable(loop: Loop[Tensor]) -> tuple[Any, ...]:
    """All that must be equal: parameters, optimisers, history, callbacks, generators."""
    return (
        loop.step.bits(),  # type: ignore[attr-defined]
        loop.state.history.rows,
        [callback.state_dict() for callback in loop.callbacks if not isinstance(callback, KillAt)],
        loop.state.best,
        loop.state.stop_reason,
        torch.get_rng_state().tolist(),
    )


@pytest.fixture
def calm(line_step: Any, run_loop: Any) -> tuple[Any, ...]:
    torch.manual_seed(5)
    loop = run_loop(line_step(), [*callbacks(), KillAt(0)], N_EPOCHS, checkpoints=None)
    # Without checkpoints the best is not looked for.
    loop.state.best = min(loop.state.history.column("loss", "valid"))
    return comparable(loop)


@pytest.mark.parametrize("every_step", [True, False], ids=["every step", "every epoch"])
@pytest.mark.parametrize("at", range(1, BATCHES + 1))
def test_killed_at_any_batch(
    at: int, every_step: bool, calm: Any, line_step: Any, run_loop: Any, tmp_path: Path
) -> None:
    options = {"every_seconds": 1e-9 if every_step else None}
    torch.manual_seed(5)
    with pytest.raises(Kill):
        run_loop(line_step(), [*callbacks(), KillAt(at)], N_EPOCHS, checkpoints=Checkpoints(tmp_path, **options))
    torch.manual_seed(6)  # another process starts from anywhere
    loop = run_loop(
        line_step(), [*callbacks(), KillAt(0)], N_EPOCHS, checkpoints=Checkpoints(tmp_path, **options), resume=True
    )
    assert comparable(loop) == calm


def test_killed_again_and_again(calm: Any, line_step: Any, run_loop: Any, tmp_path: Path) -> None:
    """Every process gets three batches further than the checkpoint it began from."""
    n_kills = 0
    torch.manual_seed(5)
    while True:
        checkpoints = Checkpoints(tmp_path, every_seconds=1e-9)
        try:
            loop = run_loop(
                line_step(), [*callbacks(), KillAt(4)], N_EPOCHS, checkpoints=checkpoints, resume=n_kills > 0
            )
            break
        except Kill:
            n_kills += 1
            torch.manual_seed(n_kills)
    assert n_kills == 6
    assert comparable(loop) == calm


def test_two_players_resume(adversarial_step: Any, tmp_path: Path) -> None:
    data = list(torch.randn(4, 3, generator=torch.Generator().manual_seed(0)))

    class KillAtCritic(Callback):
        transient = ("left",)

        def __init__(self, at: int) -> None:
            self.left = at

        def on_critic_done(self) -> None:
            self.left -= 1
            if self.left == 0:
                raise Kill

    def final(step: Any) -> list[Tensor]:
        return [*step.state_dict().values(), *step.updates[1].optimisers["generator"].state[step.generator].values()]

    calm = adversarial_step()
    Loop(calm, [KillAtCritic(0)]).run(data, n_epochs=2)
    with pytest.raises(Kill):
        Loop(adversarial_step(), [KillAtCritic(6)], checkpoints=Checkpoints(tmp_path, every_seconds=1e-9)).run(
            data, n_epochs=2
        )
    step = adversarial_step()
    loop = Loop(step, [KillAtCritic(0)], checkpoints=Checkpoints(tmp_path))
    loop.run(data, n_epochs=2, resume=True)
    assert all(torch.equal(a, b) for a, b in zip(final(calm), final(step), strict=True))
    assert [update.n_steps for update in step.updates] == [16, 8]


def test_a_finished_run_can_be_made_longer(calm: Any, line_step: Any, run_loop: Any, tmp_path: Path) -> None:
    def run(n_epochs: int, **options: Any) -> Loop[Tensor]:
        return run_loop(line_step(), [], n_epochs, checkpoints=Checkpoints(tmp_path), **options)

    torch.manual_seed(5)
    run(2)
    loop = run(2, resume=True)
    assert loop.state.stop_reason == "all 2 epochs are done"
    loop = run(4, resume=True)
    torch.manual_seed(5)
    straight = run_loop(line_step(), [], 4)
    assert loop.step.bits() == straight.step.bits()
    assert loop.state.history.rows == straight.state.history.rows


def test_a_run_does_not_mix_with_another(line_step: Any, run_loop: Any, tmp_path: Path) -> None:
    run_loop(line_step(), checkpoints=Checkpoints(tmp_path))
    with pytest.raises(InputError, match="holds checkpoints of a run; pass `resume=True`"):
        run_loop(line_step(), checkpoints=Checkpoints(tmp_path))
    with pytest.raises(CheckpointError, match=r"saved with the callbacks \[\]; pass the same to resume"):
        run_loop(line_step(), [StopOnPlateau()], checkpoints=Checkpoints(tmp_path), resume=True)
    step = line_step()
    step.optimisers["third"] = torch.optim.SGD(step.model.parameters(), lr=1.0)
    with pytest.raises(CheckpointError, match=r"saved optimisers are .*'weight'"):
        run_loop(step, checkpoints=Checkpoints(tmp_path), resume=True)
    step = line_step()
    step.optimisers["bias"].add_param_group({"params": [torch.nn.Parameter(torch.ones(1))]})
    with pytest.raises(CheckpointError, match="`bias` does not fit"):
        run_loop(step, checkpoints=Checkpoints(tmp_path), resume=True)
    with pytest.raises(InputError, match="`resume` needs `checkpoints`"):
        run_loop(line_step(), resume=True)


def test_resuming_without_a_checkpoint_starts_from_the_beginning(line_step: Any, run_loop: Any, tmp_path: Path) -> None:
    torch.manual_seed(5)
    loop = run_loop(line_step(), checkpoints=Checkpoints(tmp_path / "new"), resume=True)
    torch.manual_seed(5)
    assert loop.step.bits() == run_loop(line_step()).step.bits()


# ---- signals
class SignalAt(Callback):
    """Sends a signal to the process during the n-th batch."""

    transient = ("left",)

    def __init__(self, at: int, number: int, times: int = 1) -> None:
        self.left, self.number, self.times = at, number, times

    def on_sample(self) -> None:
        self.left -= 1
        if self.left == 0:
            for _ in range(self.times):
                os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1])
@pytest.mark.parametrize("at", [1, 3, 4, 5, 7])
def test_a_signal_finishes_the_step_saves_and_stops(
    at: int, number: signal.Signals, calm: Any, line_step: Any, run_loop: Any, record: Any, tmp_path: Path
) -> None:
    before = signal.getsignal(number)
    watcher, seen = record("on_sample")
    options = {"checkpoints": Checkpoints(tmp_path, every_seconds=None), "interruptible": True}
    torch.manual_seed(5)
    loop = run_loop(line_step(), [*callbacks(), SignalAt(at, number), watcher], N_EPOCHS, **options)
    assert seen.count("on_sample") == at, "the step in progress was the last"
    assert seen[-1] == "on_train_end"
    assert loop.state.interrupted_by == number
    assert f"interrupted by {number.name} after epoch" in loop.state.stop_reason
    assert signal.getsignal(number) == before
    again = run_loop(
        line_step(), [*callbacks(), SignalAt(0, number), record("on_sample")[0]], N_EPOCHS, resume=True, **options
    )
    assert again.step.bits() == calm[0]
    assert again.state.history.rows == calm[1]
    assert again.state.interrupted_by is None


def test_a_second_signal_stops_now(line_step: Any, run_loop: Any) -> None:
    with pytest.raises(KeyboardInterrupt):
        run_loop(line_step(), [SignalAt(2, signal.SIGINT, times=2)], interruptible=True)
    with pytest.raises(SystemExit) as caught:
        run_loop(line_step(), [SignalAt(2, signal.SIGTERM, times=2)], interruptible=True)
    assert caught.value.code == 143


def test_exit_codes() -> None:
    assert [exit_code(s) for s in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)] == [130, 143, 143]
    with Interruptible() as interruptible:
        os.kill(os.getpid(), signal.SIGUSR1)
        assert interruptible.signal_number == signal.SIGUSR1


# ---- not finite
def test_a_spoilt_step_is_saved_without_it_and_can_be_gone_on_from(
    line_step: Any, run_loop: Any, tmp_path: Path
) -> None:
    class Spoils(Callback):
        transient = ("at",)

        def __init__(self, at: int) -> None:
            self.at = at

        def on_backwards_end(self) -> None:
            self.at -= 1
            if self.at == 0:
                assert self.state.update is not None
                self.state.update.parameters[0].grad[0, 0] = float("nan")  # type: ignore[index]

    checkpoints = Checkpoints(tmp_path)
    step = line_step()
    with pytest.raises(NonFiniteError, match=r"gradients of weight\[0\]; at epoch 2, phase train, batch 1"):
        run_loop(step, [Spoils(5), StopOnNonFinite()], checkpoints=checkpoints)
    saved = checkpoints.load()
    assert saved is not None
    assert saved.tree["loop"]["fields"]["batch"] == 2
    model = saved.tree["step"]["model"]
    assert all(torch.equal(model[name], value) for name, value in step.model.state_dict().items())
    assert all(torch.isfinite(value).all() for value in model.values())
    loop = run_loop(line_step(), [Spoils(0), StopOnNonFinite()], checkpoints=checkpoints, resume=True)
    assert loop.state.stop_reason == "all 2 epochs are done"


# ---- damaged resumes
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(
    calm: Any, line_step: Any, run_loop: Any, tmp_path: Path
) -> None:
    torch.manual_seed(5)
    run_loop(line_step(), [*callbacks(), KillAt(0)], N_EPOCHS, checkpoints=Checkpoints(tmp_path))
    latest = sorted(p for p in tmp_path.iterdir() if p.name.isdecimal())[-1]
    tensors = latest / "tensors.safetensors"
    content = bytearray(tensors.read_bytes())
    content[-1] ^= 1
    tensors.write_bytes(content)
    with pytest.warns(storage.StorageWarning, match=f"{latest.name}/tensors.safetensors` is damaged"):
        loop = run_loop(
            line_step(), [*callbacks(), KillAt(0)], N_EPOCHS, checkpoints=Checkpoints(tmp_path), resume=True
        )
    assert comparable(loop) == calm


def test_a_checkpoint_of_a_later_version_is_refused(line_step: Any, run_loop: Any, tmp_path: Path) -> None:
    from diffdet.loop import checkpoint

    run_loop(line_step(), checkpoints=Checkpoints(tmp_path))
    path = tmp_path / "last" / "MANIFEST.json"
    content = json.loads(path.read_text())
    content.pop("sha256")
    content |= {"format_version": 2, "diffdet": "9.9"}
    path.write_bytes(checkpoint._signed(content))
    with pytest.raises(VersionError, match=r"written by diffdet 9.9 in format 2.*needs diffdet >= 9.9"):
        run_loop(line_step(), checkpoints=Checkpoints(tmp_path), resume=True)


def test_nothing_whole_left(line_step: Any, run_loop: Any, tmp_path: Path) -> None:
    run_loop(line_step(), checkpoints=Checkpoints(tmp_path))
    for path in tmp_path.glob("0*/state.json"):
        path.write_text("{}")
    with pytest.raises(FileDamagedError, match=r"no checkpoint in .* can be read"):
        run_loop(line_step(), checkpoints=Checkpoints(tmp_path), resume=True)


def test_checkpoints_need_a_step_that_can_be_saved(data: Callable[[int], list[Tensor]], tmp_path: Path) -> None:
    class Bare:
        events = ()
        needs_grad = False

        def train(self, mode: bool) -> None:
            pass

        def __call__(self, batch: Tensor, state: Any, fire: Any) -> dict[str, float]:
            return {}

    assert Loop(Bare()).run(data, n_epochs=1).history.rows[0] == {"epoch": 1, "phase": "train"}
    with pytest.raises(InputError, match="`checkpoints` need a step with `state_dict`"):
        Loop(Bare(), checkpoints=Checkpoints(tmp_path))
