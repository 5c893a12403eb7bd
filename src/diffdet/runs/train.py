"""The job `train`: from a configuration to trained networks, their figures and a report.

The run folder is that of `optimise`: ``config.yaml``, ``metrics.jsonl``, ``checkpoints/``, ``result.json``,
``report.html``; and ``ensemble/`` (the trained models), ``predictions.npz`` (the test events) and, where asked for,
``model_0.onnx`` and so on. `plan_training` and `TrainJob.open` refuse what cannot run, before anything is written;
`TrainJob.run` never raises for what happens while running.
"""

from __future__ import annotations

import os
import time
import traceback
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from diffdet.core.errors import DiffdetError, InputError, StorageError
from diffdet.core.storage import remove_folder
from diffdet.runs.config.reading import to_yaml
from diffdet.runs.config.train import TrainConfig
from diffdet.runs.config.train_reading import as_train_mapping, load_train_config
from diffdet.runs.doctor import versions
from diffdet.runs.folder import RunFolder
from diffdet.runs.optimise import Outcome, Reporter, Silent

if TYPE_CHECKING:
    from diffdet.nn.models.model import Model
    from diffdet.runs.lock import FolderLock
    from diffdet.runs.train_build import BuiltTraining

__all__ = ["TrainJob", "plan_training"]

RESULT_VERSION = 1


@dataclass
class TrainJob:
    """A planned training. Use as a context manager: within, the folder is held.

    Attributes:
        config: What to run.
        folder: Where.
        resume: Whether to go on from the last checkpoint.
        overwrite: Whether a run that is in the folder is removed first.
        command: How the job was called, for the report.
        reporter: Is told how it goes.
    """

    config: TrainConfig
    folder: RunFolder
    resume: bool = False
    overwrite: bool = False
    command: str = ""
    reporter: Reporter = field(default_factory=Silent)
    _built: BuiltTraining | None = None
    _lock: FolderLock | None = None
    _group: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._lock is not None:
            self._lock.release()
            self._lock = None
        self._group.close()

    def open(self) -> None:
        """Build everything, then take the folder and write the configuration.

        Raises:
            InputError: If something cannot be built, or the folder cannot take a new run; nothing has been written.
            LockedError: If another process holds the folder.
            StorageError: If the folder cannot be written.
        """
        from diffdet.nn.training import distributed
        from diffdet.runs.threads import keep_to_one_thread
        from diffdet.runs.train_build import build_training

        keep_to_one_thread()
        self._built = build_training(self.config)
        group: AbstractContextManager[int] = distributed.process_group(self._built.device)
        self._group.enter_context(group)
        created = self.folder.state() == "absent"
        try:
            if distributed.is_writer():
                self._lock = self.folder.lock()
                self._begin()
            distributed.wait()
        except BaseException as error:
            self.__exit__(None, None, None)
            if created:
                self.folder.remove_empty()
            if isinstance(error, StorageError):
                error.nothing_written = True  # type: ignore[attr-defined]
            raise

    def _begin(self) -> None:
        """Write the configuration, unless the folder has one to go on with."""
        if self.overwrite:
            clear(self.folder)
        if not self.resume:
            self.folder.check_new()
        if not self.is_complete:
            self.folder.result.unlink(missing_ok=True)
        if self.folder.state() != "started":
            self.folder.write_config(to_yaml(as_train_mapping(self.config) | {"versions": versions()}))

    @property
    def is_complete(self) -> bool:
        """Whether the folder holds a complete run already."""
        return self.folder.read_result().get("status") == "complete"

    def run(self) -> Outcome:
        """Train, evaluate and report.

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
                running.train()
                if running.interrupted_by is None:
                    running.evaluate()
        except Interrupted as error:
            running.interrupted_by = error.number
            running.reason = f"interrupted by {error} {running.where}"
        except DiffdetError as error:
            return running.end("failed", str(error), 1)
        except MemoryError:
            return running.end("failed", "out of memory; a smaller `schedule.batch_size` needs less", 1)
        except Exception as error:
            return running.end("failed", f"{type(error).__name__}: {error}", 1, trace=traceback.format_exc())
        if running.interrupted_by is not None:
            return running.end("interrupted", running.reason, exit_code(running.interrupted_by))
        return running.end("complete", running.reason, 0)


class _Running:
    """The state of a job between its start and its end."""

    def __init__(self, job: TrainJob, built: BuiltTraining) -> None:
        self.job, self.built = job, built
        self.started = time.monotonic()
        self.seconds_before = 0.0
        self.interrupted_by: int | None = None
        self.reason = ""
        self.where = "before the first epoch"
        self.models: list[Model] = []
        self.told: list[dict[str, Any]] = []
        self.lines: list[dict[str, Any]] = []
        self.found: dict[str, Any] = {}
        self.notes: list[str] = []

    # ------------------------------------------------------------------------------------------------------------ train
    def train(self) -> None:
        """Train every model; those that a run before this one has finished are only read."""
        schedule = self.job.config.schedule
        learn = self.built.data.learn_idxs
        self.job.reporter.stage("Training", "epochs")
        for number in range(schedule.models):
            val_idx = learn[-1 - number % len(learn)]
            self._train_one(number, [idx for idx in learn if idx != val_idx], val_idx)
            if self.interrupted_by is not None:
                return
        reasons = {entry["reason"] for entry in self.told}
        self.reason = reasons.pop() if len(reasons) == 1 else f"all {schedule.models} models are trained"

    def _train_one(self, number: int, trn_idxs: list[int], val_idx: int) -> None:
        from diffdet.core.random import key_seed
        from diffdet.loop.checkpoint import Checkpoints
        from diffdet.nn.callbacks.monitors import EarlyStopping, MetricLogger, SaveBest
        from diffdet.nn.models.model import Model
        from diffdet.runs.registry import searching
        from diffdet.runs.train_build import build_callbacks
        from diffdet.runs.train_recorder import MetricsRecorder

        config, folder = self.job.config, self.job.folder
        schedule = config.schedule
        own = folder.checkpoints / f"model_{number}" if schedule.models > 1 else folder.checkpoints
        seed = key_seed(config.seed, "model", number)
        model = Model(self.built.builder, seed=seed, device=self.built.device)
        with searching(config.search_path):
            callbacks, metrics = build_callbacks(config)
        logger = MetricLogger()
        recorder = MetricsRecorder(folder.metrics, number, self.lines, self._tell)
        cbs: list[Any] = [*callbacks, *metrics, logger, recorder]
        if schedule.patience is not None:
            cbs.append(EarlyStopping(schedule.patience))
        if schedule.keep_best:
            cbs.append(SaveBest(name=f"best_{number}.safetensors"))
        model.fit(
            schedule.epochs,
            self.built.train,
            schedule.batch_size,
            trn_idxs=trn_idxs,
            val_idx=val_idx,
            cbs=cbs,
            cb_savepath=folder.checkpoints,
            seed=seed,
            checkpoint=Checkpoints(
                own,
                every_epochs=config.checkpoints.every_epochs,
                every_seconds=config.checkpoints.every,
                keep=config.checkpoints.keep,
            ),
            resume=self.job.resume,
            interruptible=True,
            amp=schedule.amp,
        )
        state = model.last_fit
        assert state is not None
        self.lines = recorder.lines()
        self.seconds_before += recorder.seconds_before or 0.0
        self.reason, self.interrupted_by = state.stop_reason or "", state.interrupted_by
        self.models.append(model)
        self.told.append(
            {
                "model": number,
                "validation_fold": val_idx,
                "epochs": state.n_epochs_done,
                "reason": self.reason,
                "parameters": model.get_param_count(False),
                "updates": sum(update.n_steps for update in [state.update] if update is not None),
                **{f"best_{key}": value for key, value in logger.get_results(schedule.keep_best).items()},
            }
        )

    def _tell(self, number: int, done: int, n_epochs: int, text: str) -> None:
        self.where = f"after epoch {done} of {n_epochs} of model {number}"
        self.job.reporter(number * n_epochs + done, self.job.config.schedule.models * n_epochs, text)

    # --------------------------------------------------------------------------------------------------------- evaluate
    def evaluate(self) -> None:
        """Save the models, and measure them on the test folds."""
        from diffdet.nn.ensemble.ensemble import Ensemble
        from diffdet.nn.training import distributed
        from diffdet.runs.train_evaluate import evaluate

        if not distributed.is_writer():
            return
        self.where = "during the evaluation"
        folder, config = self.job.folder, self.job.config
        losses = [entry["best_loss"] for entry in self.told]
        weights = [1.0 / loss for loss in losses] if all(loss > 0 for loss in losses) else None
        ensemble = Ensemble.from_models(self.models, weights, self.told, self.built.builder)
        try:
            ensemble.save(folder.path / "ensemble", feats=self.built.builder.cont_feats, overwrite=True)
        except InputError as error:
            self.notes.append(f"the models were not saved together: {error}; they are in checkpoints/")
        self.job.reporter.stage("Evaluating", "features")
        self.found = evaluate(config, self.built, ensemble, folder, self.job.reporter)
        for entry, weight in zip(self.told, ensemble.weights, strict=True):
            entry["weight"] = weight
        if config.evaluation.onnx:
            self._export(ensemble)

    def _export(self, ensemble: Any) -> None:
        """Export the models to ONNX, with masks where there are any."""
        fold = self.built.plain.get_fold(self.built.data.test_idxs[0])
        inputs = fold["inputs"]
        few = tuple(part[:3] for part in inputs) if isinstance(inputs, tuple) else inputs[:3]
        self.where = "during the export"
        ensemble.export_to_onnx(self.job.folder.path / "model", inputs=few, mask=fold.get("mask") is not None)

    # -------------------------------------------------------------------------------------------------------------- end
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
        from diffdet.nn.training import distributed

        message = "" if status == "complete" else reason
        result = self._result(status, reason, trace)
        if not distributed.is_writer():
            return Outcome(code, result, message)
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
        config = self.job.config
        wall = self.seconds_before + time.monotonic() - self.started
        n_events = sum(line.get("events", 0) for line in self.lines)
        result: dict[str, Any] = {
            "format_version": RESULT_VERSION,
            "kind": "train",
            "status": status,
            "reason": reason,
            "name": config.name,
            "objective": config.network.objective,
            "seed": config.seed,
            "device": str(self.built.device),
            "command": self.job.command,
            "final": self.found.get("final"),
            "baselines": self.found.get("baselines", {}),
            "importance": self.found.get("importance", []),
            "test_events": self.found.get("test_events"),
            "models": self.told,
            "epochs": max((line["epoch"] for line in self.lines), default=0),
            "wall_seconds": round(wall, 3),
            "events_trained": n_events,
            "finished": datetime.now().astimezone().isoformat(timespec="seconds"),
            "versions": versions(),
        }
        if self.notes:
            result["warnings"] = self.notes
        if trace:
            result["traceback"] = trace.splitlines()
        return result


_OURS = ("config.yaml", "metrics.jsonl", "result.json", "report.html", "predictions.npz")


def clear(folder: RunFolder) -> None:
    """Remove a run of `train` from a folder, and nothing else.

    Raises:
        InputError: If the folder holds other files, or a run of another kind.
    """
    if folder.state() in ("absent", "empty"):
        return
    import yaml

    text = folder.config.read_text(encoding="utf-8") if folder.state() == "started" else ""
    kind = (yaml.safe_load(text) or {}).get("kind") if text else None
    if kind != "train":
        raise InputError(
            f"--overwrite: expected the folder of a training, given {str(folder.path)!r}, which holds other files"
        )
    for name in ("checkpoints", "ensemble"):
        if (folder.path / name).is_dir():
            remove_folder(folder.path / name)
    for path in [*(folder.path / name for name in _OURS), *folder.path.glob("model_*.onnx")]:
        path.unlink(missing_ok=True)


def plan_training(
    source: str | Path | None,
    out: str | Path,
    *,
    sets: Sequence[str] = (),
    seed: int | None = None,
    device: str | None = None,
    smoke: bool = False,
    resume: bool = False,
    overwrite: bool = False,
    command: str = "",
    reporter: Reporter | None = None,
) -> TrainJob:
    """Decide what to run and where; nothing is written.

    Args:
        source: Configuration file or built-in problem; None when resuming for the run's own.
        out: The run folder.
        sets: Changes to the configuration.
        seed: Replaces the configuration's.
        device: Replaces the configuration's.
        smoke: Whether to make the run tiny.
        resume: Whether to go on with the run in the folder; a folder without a run is started.
        overwrite: Whether a training that is in the folder is removed first.
        command: How the job was called.
        reporter: Is told how it goes.

    Returns:
        The job, to be used as a context manager.

    Raises:
        InputError: If the configuration or the folder cannot be used.
    """
    from diffdet.runs.optimise import check_same_run

    if resume and overwrite:
        raise InputError("--overwrite: expected it without --resume, given both")
    folder = RunFolder(Path(out))
    shown = reporter or Silent()
    changes: dict[str, Any] = {"sets": sets, "seed": seed, "device": device, "smoke": smoke}
    first = os.environ.get("RANK", "0") == "0"  # of processes that train together, one takes the folder
    if first:
        folder.check_free()
    if resume and folder.state() == "started":
        config = load_train_config(folder.config)
        if source is not None:
            check_same_run(as_train_mapping(load_train_config(source, **changes)), as_train_mapping(config), folder)
        return TrainJob(config, folder, resume=True, command=command, reporter=shown)
    if source is None:
        raise InputError("CONFIG: expected a configuration file or a built-in problem, given nothing")
    if first and not overwrite:
        folder.check_new()
    config = load_train_config(source, **changes)
    return TrainJob(config, folder, resume=resume, overwrite=overwrite, command=command, reporter=shown)
