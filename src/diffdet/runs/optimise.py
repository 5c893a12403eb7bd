"""The job `optimise`: from a configuration to an optimised detector, its evaluation and a report.

Two halves. `plan` and `Job.open` refuse what cannot run, before anything is written. `Job.run` never raises for what
happens while running: whatever it is, the state is saved, `result.json` says what it was, and the outcome carries the
exit code.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Protocol, Self

from diffdet.core.errors import DiffdetError, InputError, NoHitsError, StorageError
from diffdet.runs.config import RunConfig, as_mapping, load_config, to_yaml
from diffdet.runs.doctor import versions
from diffdet.runs.folder import RunFolder

if TYPE_CHECKING:
    from diffdet.runs.build import Built
    from diffdet.runs.lock import FolderLock
    from diffdet.runs.recorders import MetricsRecorder
    from diffdet.runs.tasks.base import Evaluation
    from diffdet.tomography.volume.volume import Volume

RESULT_VERSION = 1


class Reporter(Protocol):
    """Is told how the job goes."""

    def stage(self, title: str, unit: str | None = None) -> None:
        """The next part of the job begins; `unit` is what will be counted."""
        ...

    def __call__(self, done: int, total: int | None = None, text: str = "") -> None:
        """So many are done, of so many."""
        ...


class Silent:
    """A reporter that says nothing."""

    def stage(self, title: str, unit: str | None = None) -> None:
        """Say nothing."""

    def __call__(self, done: int, total: int | None = None, text: str = "") -> None:
        """Say nothing."""


@dataclass(frozen=True)
class Outcome:
    """How a job ended.

    Attributes:
        exit_code: 0 complete, 1 failed, 130 or 143 interrupted.
        result: Content of `result.json`.
        message: What went wrong, in a sentence; empty for complete runs.
    """

    exit_code: int
    result: dict[str, Any]
    message: str = ""


@dataclass
class Job:
    """A planned run. Use as a context manager: within, the folder is held.

    Attributes:
        config: What to run.
        folder: Where.
        resume: Whether to go on from the last checkpoint.
        command: How the job was called, for the report.
        reporter: Is told how it goes.
    """

    config: RunConfig
    folder: RunFolder
    resume: bool = False
    command: str = ""
    reporter: Reporter = field(default_factory=Silent)
    _built: Built | None = None
    _lock: FolderLock | None = None

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None

    def open(self) -> None:
        """Build everything, then take the folder and write the configuration.

        Raises:
            InputError: If something cannot be built, or the folder cannot take a new run; nothing has been written.
            LockedError: If another process holds the folder.
            StorageError: If the folder cannot be written.
        """
        from diffdet.runs.build import build
        from diffdet.runs.threads import keep_to_one_thread

        keep_to_one_thread()
        self._built = build(self.config)
        created = self.folder.state() == "absent"
        try:
            self._lock = self.folder.lock()
            self._begin()
        except BaseException as error:
            self.__exit__(None, None, None)
            if created:
                self.folder.remove_empty()
            if isinstance(error, StorageError):
                error.nothing_written = True  # type: ignore[attr-defined]
            raise

    def _begin(self) -> None:
        """Write the configuration, unless the folder has one to go on with."""
        # Somebody may have started here since the plan was made.
        if not self.resume:
            self.folder.check_new()
        if not self.is_complete:
            # A result says how a run ended; this one goes on.
            self.folder.result.unlink(missing_ok=True)
        if self.folder.state() != "started":
            self.folder.write_config(to_yaml(as_mapping(self.config) | {"versions": versions()}))

    @property
    def is_complete(self) -> bool:
        """Whether the folder holds a complete run already."""
        return self.folder.read_result().get("status") == "complete"

    def run(self) -> Outcome:
        """Optimise, evaluate and report.

        Returns:
            How it ended.
        """
        from diffdet.loop.interrupts import exit_code
        from diffdet.runs.signals import Interrupted, interrupting

        assert self._built is not None
        if self.is_complete:
            return Outcome(0, self.folder.read_result())
        running = _Running(self, self._built)
        try:
            with interrupting():
                running.fit()
                if running.interrupted_by is None:
                    running.evaluate()
        except Interrupted as error:
            running.interrupted_by = error.number
            running.reason = f"interrupted by {error} {running.where}"
        except DiffdetError as error:
            return running.end("failed", str(error), 1)
        except MemoryError:
            return running.end("failed", "out of memory; a smaller `muons.batch` needs less", 1)
        except Exception as error:
            return running.end("failed", f"{type(error).__name__}: {error}", 1, trace=traceback.format_exc())
        if running.interrupted_by is not None:
            return running.end("interrupted", running.reason, exit_code(running.interrupted_by))
        return running.end("complete", running.reason, 0)


class _Running:
    """The state of a job between its start and its end."""

    def __init__(self, job: Job, built: Built) -> None:
        self.job, self.built = job, built
        self.started = time.monotonic()
        self.interrupted_by: int | None = None
        self.reason = ""
        self.where = "before the first epoch"
        self.evaluation: Evaluation | None = None
        self.models: dict[str, Any] | None = None
        self.recorder: MetricsRecorder | None = None
        self.notes: list[str] = []

    def fit(self) -> None:
        """Run the training loop."""
        from diffdet.loop.checkpoint import Checkpoints
        from diffdet.runs.recorders import DetectorRecorder, MetricsRecorder

        config, folder, wrapper = self.job.config, self.job.folder, self.built.wrapper
        self.recorder = MetricsRecorder(folder.metrics, self._tell)
        checkpoints = Checkpoints(
            folder.checkpoints,
            every_epochs=config.checkpoints.every_epochs,
            every_seconds=config.checkpoints.every,
            keep=config.checkpoints.keep,
        )
        self.job.reporter.stage("Optimising", "epochs")
        wrapper.fit(
            config.schedule.total_epochs,
            config.volumes_per_update,
            config.muons.per_volume,
            config.muons.batch_size,
            self.built.train,
            self.built.valid,
            cbs=[*self.built.callbacks, DetectorRecorder(folder.detectors), self.recorder],
            cb_savepath=folder.path,
            checkpoint=checkpoints,
            resume=self.job.resume,
            interruptible=True,
        )
        state = wrapper.last_fit
        assert state is not None
        self.reason = state.stop_reason or ""
        self.interrupted_by = state.interrupted_by

    def _tell(self, done: int, total: int | None, text: str) -> None:
        self.where = f"after epoch {done} of {total}"
        self.job.reporter(done, total, text)

    def evaluate(self) -> None:
        """Measure the detectors on volumes that the optimisation has not seen."""
        from diffdet.runs.build import build_volume, same_volume

        self.where = "during the evaluation"
        self.job.reporter.stage("Evaluating", "volumes")
        config = self.job.config
        final = same_volume(config, self.built.volume)
        try:
            self.evaluation = self.built.task.evaluate(config, build_volume(config), final, self.job.reporter)
        except NoHitsError as error:
            # A detector that sees nothing is a result, if a poor one.
            self.notes.append(f"no figures: {error}")
        self._compare_models(final)

    def _compare_models(self, final: Volume) -> None:
        """Measure how far the model that was optimised is from the physical one."""
        from diffdet.runs.model_comparison import compare_models

        self.where = "during the comparison of models"
        self.job.reporter.stage("Comparing models", "steps")
        try:
            self.models = compare_models(self.job.config, final, self.built.task, self.job.reporter)
        except Exception as error:
            # It stands beside the result: what goes wrong with it must not make a failure of the run.
            self.notes.append(f"no comparison of the detector's models: {type(error).__name__}: {error}")

    def end(self, status: str, reason: str, code: int, *, trace: str = "") -> Outcome:
        """Write result and report.

        Args:
            status: ``"complete"``, ``"interrupted"`` or ``"failed"``.
            reason: Why the run ended.
            code: Exit code.
            trace: Where an error came from that nobody foresaw.

        Returns:
            The outcome; where not even the result can be written, it says so.
        """
        message = "" if status == "complete" else reason
        result = self._result(status, reason, trace)
        try:
            result = self.job.folder.write_result(result)
            self._report()
        except DiffdetError as error:
            return Outcome(1, result, f"{message}; {error}" if message else str(error))
        return Outcome(code, result, message)

    def _report(self) -> None:
        from diffdet.report import write_report

        write_report(self.job.folder.path)

    def _result(self, status: str, reason: str, trace: str) -> dict[str, Any]:
        config, found = self.job.config, self.evaluation
        lines = self.recorder.lines() if self.recorder is not None else []
        n_muons = sum(line["muons"] for line in lines) + (found.n_muons if found else 0)
        before = (self.recorder.seconds_before or 0.0) if self.recorder is not None else 0.0
        wall = before + time.monotonic() - self.started
        losses = {
            phase: [line["loss"] for line in lines if line["phase"] == phase and line["loss"] is not None]
            for phase in ("train", "valid")
        }
        result: dict[str, Any] = {
            "format_version": RESULT_VERSION,
            "kind": "optimise",
            "status": status,
            "reason": reason,
            "name": config.name,
            "task": config.task.class_,
            "seed": config.seed,
            "device": str(self.built.volume.device),
            "command": self.job.command,
            "initial": found.initial if found else None,
            "final": found.final if found else None,
            "baselines": found.baselines if found else {},
            "epochs": max((line["epoch"] for line in lines), default=0),
            "losses": {f"last_{phase}": values[-1] for phase, values in losses.items() if values},
            "wall_seconds": round(wall, 3),
            "muons_simulated": n_muons,
            "muons_per_second": round(n_muons / wall, 1) if wall > 0 else None,
            "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": versions(),
        }
        if found:
            result["evaluation"] = {"text": found.text, "notes": found.notes, **found.details}
            result["predictions"] = found.predictions
        result["model_comparison"] = self.models
        if self.notes:
            result["warnings"] = self.notes
        if trace:
            result["traceback"] = trace.splitlines()
        return result


def plan(
    source: str | Path | None,
    out: str | Path,
    *,
    sets: Sequence[str] = (),
    seed: int | None = None,
    device: str | None = None,
    smoke: bool = False,
    resume: bool = False,
    command: str = "",
    reporter: Reporter | None = None,
) -> Job:
    """Decide what to run and where; nothing is written.

    Args:
        source: Configuration file or built-in design; None for the default, or when resuming for the run's own.
        out: The run folder.
        sets: Changes to the configuration.
        seed: Replaces the configuration's.
        device: Replaces the configuration's.
        smoke: Whether to make the run tiny.
        resume: Whether to go on with the run in the folder; a folder without a run is started.
        command: How the job was called.
        reporter: Is told how it goes.

    Returns:
        The job, to be used as a context manager.

    Raises:
        InputError: If the configuration or the folder cannot be used.
    """
    folder = RunFolder(Path(out))
    shown = reporter or Silent()
    changes: dict[str, Any] = {"sets": sets, "seed": seed, "device": device, "smoke": smoke}
    folder.check_free()
    if resume and folder.state() == "started":
        config = load_config(folder.config)
        if source is not None or sets or seed is not None or device is not None or smoke:
            check_same_run(as_mapping(load_config(source, **changes)), as_mapping(config), folder)
        return Job(config, folder, resume=True, command=command, reporter=shown)
    folder.check_new()
    return Job(load_config(source, **changes), folder, resume=resume, command=command, reporter=shown)


def check_same_run(wanted: dict[str, Any], found: dict[str, Any], folder: RunFolder) -> None:
    """Refuse to go on with a run under another configuration.

    Args:
        wanted: Configuration that was asked for, as plain values.
        found: That of the run.
        folder: Where the run is.

    Raises:
        InputError: If they differ; the message names the first key that does.
    """
    new, old = (_flat(config | {"versions": {}, "search_path": []}) for config in (wanted, found))
    for key in sorted(new.keys() | old.keys()):
        if new.get(key) != old.get(key):
            raise InputError(
                f"{key}: expected {old.get(key)!r}, with which the run in {str(folder.path)!r} was started, given "
                f"{new.get(key)!r}. "
                "To resume, leave the configuration as it was; for another one, choose another folder"
            )


def _flat(value: Any, path: str = "") -> dict[str, Any]:
    if isinstance(value, dict):
        return {
            k: v for key, inner in value.items() for k, v in _flat(inner, f"{path}.{key}" if path else str(key)).items()
        }
    if isinstance(value, list):
        return {k: v for place, inner in enumerate(value) for k, v in _flat(inner, f"{path}[{place}]").items()}
    return {path: value}
