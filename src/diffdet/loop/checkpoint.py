"""Checkpoints from which a run goes on bit for bit, whatever killed it.

A folder of checkpoints looks like this::

    checkpoints/
    ├── 00000007/                 the one before
    ├── 00000008/
    │   ├── tensors.safetensors   parameters, optimisers, generators
    │   ├── state.json            everything else
    │   └── MANIFEST.json         SHA-256 of both and the version of the format: written last, so it commits the folder
    ├── last -> 00000008
    └── best -> 00000007

A folder without a manifest was never finished and does not count. The one before is removed only when its successor is
whole, so there is always one to go on from. ``last`` and ``best`` are for people and scripts: the library itself goes
by the manifests, so that no kill between two writes can make them disagree.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
import warnings
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import torch

from diffdet._version import __version__
from diffdet.core import storage
from diffdet.core.checks import check_choice
from diffdet.core.errors import CheckpointError, FileDamagedError, InputError, StorageError
from diffdet.loop import packing

__all__ = ["Checkpoints", "Saved"]

FORMAT: Final = "diffdet-checkpoint"
FORMAT_VERSION: Final = 1

_TENSORS, _STATE, _MANIFEST = "tensors.safetensors", "state.json", "MANIFEST.json"
_DIGITS = 8


@dataclass(frozen=True)
class Saved:
    """A checkpoint that was read and found whole.

    Attributes:
        path: Its folder.
        tree: What was saved.
        best: Whether it was the best so far when it was saved.
        about: What the saver said about it, for example epoch and metrics.
    """

    path: Path
    tree: Any
    best: bool
    about: Mapping[str, Any]


class Checkpoints:
    """A folder of checkpoints, and how often to add to it.

    Args:
        folder: Where they lie; created when the first is saved. One run at a time may use it.
        every_epochs: Save at the end of every so many epochs, and always after the last; 0 for never.
        every_seconds: Save between two steps when the last one is older than this, s; None for never.
        keep: How many of the latest to keep, at least 1; the best is kept in addition.
        monitor: Metric by which the best is told; of the validation where there is one, otherwise of the training.
        lower_is_better: Whether a lower value of the metric is better.
        clock: Where the time comes from, s.

    Raises:
        InputError: If a number is out of range.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        *,
        every_epochs: int = 1,
        every_seconds: float | None = 300.0,
        keep: int = 2,
        monitor: str = "loss",
        lower_is_better: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        if keep < 1:
            raise InputError(f"`keep` must be at least 1, so that there is one to resume from; got {keep}")
        if every_epochs < 0:
            raise InputError(f"`every_epochs` must be 0 or more; got {every_epochs}")
        if every_seconds is not None and not every_seconds > 0:
            raise InputError(f"`every_seconds` must be greater than 0, or None; got {every_seconds}")
        self.folder = Path(folder)
        self.every_epochs = every_epochs
        self.every_seconds = every_seconds
        self.keep = keep
        self.monitor = monitor
        self.lower_is_better = lower_is_better
        self._clock = clock
        self._saved_at = clock()

    # ------------------------------------------------------------------------------------------------------------ when
    def start(self) -> None:
        """Begin to write here: create the folder, remove what killed processes left, and start the clock.

        Raises:
            StorageError: If the folder cannot be created or written to.
        """
        storage.make_folder(self.folder)
        storage.clean_temporaries(self.folder)
        for folder in self._numbered():
            if not (folder / _MANIFEST).exists():
                storage.remove_folder(folder)
        self._saved_at = self._clock()

    @property
    def due(self) -> bool:
        """Whether the last checkpoint is older than `every_seconds`."""
        return self.every_seconds is not None and self._clock() - self._saved_at >= self.every_seconds

    def due_after(self, epoch: int, n_epochs: int) -> bool:
        """Whether to save at the end of an epoch, counted from 1."""
        return epoch == n_epochs or (self.every_epochs > 0 and epoch % self.every_epochs == 0)

    def better(self, value: float, than: float | None) -> bool:
        """Whether one value of the metric is better than another; NaN never is."""
        if than is None or than != than:
            return value == value
        return value < than if self.lower_is_better else value > than

    # ----------------------------------------------------------------------------------------------------------- write
    def save(self, tree: Any, *, best: bool = False, about: Mapping[str, Any] | None = None) -> Path:
        """Add a checkpoint, then remove those that are no longer kept.

        Args:
            tree: What to save; see `diffdet.loop.packing.pack`.
            best: Whether it is the best so far.
            about: Few numbers and words about it, kept readable in the manifest.

        Returns:
            The new folder.

        Raises:
            StorageError: If it cannot be written; older checkpoints are untouched.
            CheckpointError: If the tree holds something that cannot be saved.
        """
        tensors, value = packing.pack(tree)
        files = {
            _TENSORS: packing.tensors_to_bytes(tensors),
            _STATE: (json.dumps(value, allow_nan=False, indent=1) + "\n").encode(),
        }
        numbers = [int(folder.name) for folder in self._numbered()]
        folder = storage.make_folder(self.folder / f"{max(numbers, default=0) + 1:0{_DIGITS}d}")
        try:
            for name, data in files.items():
                storage.write_bytes(folder / name, data)
            storage.write_bytes(folder / _MANIFEST, _manifest(files, best, about or {}))
        except StorageError:
            with suppress(StorageError):  # give the space back to a full disk
                storage.remove_folder(folder)
            raise
        self._saved_at = self._clock()
        self._link("last", folder)
        if best:
            self._link("best", folder)
        self._prune()
        return folder

    def _prune(self) -> None:
        """Remove what is neither among the latest nor the best."""
        whole = [folder for folder in self._numbered() if (folder / _MANIFEST).exists()]
        best = next((folder for folder in reversed(whole) if self._says_best(folder)), None)
        for folder in whole[: -self.keep]:
            if folder != best:
                storage.remove_folder(folder)

    @staticmethod
    def _says_best(folder: Path) -> bool:
        try:
            return bool(_read_manifest(folder)["best"])
        except (StorageError, CheckpointError):
            return False

    def _link(self, name: str, folder: Path) -> None:
        """Point `last` or `best` at a checkpoint: a symbolic link, or a file with its name where there are none."""
        place = self.folder / name
        temporary = self.folder / f".{name}.{os.getpid()}{storage.TEMPORARY_SUFFIX}"
        try:
            with suppress(FileNotFoundError):
                temporary.unlink()
            temporary.symlink_to(folder.name, target_is_directory=True)
            os.replace(temporary, place)
        except (OSError, NotImplementedError):
            with suppress(OSError):
                temporary.unlink(missing_ok=True)
            storage.write_text(place, folder.name + "\n")

    # ------------------------------------------------------------------------------------------------------------ read
    def __len__(self) -> int:
        """How many finished checkpoints there are, damaged ones included."""
        return sum((folder / _MANIFEST).exists() for folder in self._numbered())

    def load(self, which: str = "last") -> Saved | None:
        """Read the last or the best checkpoint that is whole.

        A damaged one is named in a `StorageWarning` and the one before it is read instead.

        Args:
            which: ``"last"`` or ``"best"``.

        Returns:
            What was saved, or None where there is no (best) checkpoint.

        Raises:
            FileDamagedError: If there are checkpoints and every one is damaged.
            VersionError: If a later version of diffdet wrote the newest.
        """
        check_choice("which", which, ("last", "best"))
        damaged: list[str] = []
        n_whole = 0
        for folder in reversed(self._numbered()):
            if not (folder / _MANIFEST).exists():
                continue
            try:
                saved = _read(folder)
            except (FileDamagedError, StorageError) as error:
                damaged.append(str(error))
                continue
            n_whole += 1
            if which == "last" or saved.best:
                for text in damaged:
                    message = f"{text}. The {which} checkpoint before it is used: `{folder}`"
                    warnings.warn(message, storage.StorageWarning, stacklevel=2)
                return saved
        if damaged and not n_whole:
            raise FileDamagedError(
                f"no checkpoint in `{self.folder}` can be read: {'; '.join(damaged)}. Start again without resuming"
            )
        return None

    def _numbered(self) -> list[Path]:
        """Folders of checkpoints, finished or not, oldest first."""
        if not self.folder.is_dir():
            return []
        names = sorted(p.name for p in self.folder.iterdir() if p.name.isdecimal() and not p.is_symlink())
        return [self.folder / name for name in sorted(names, key=int)]


def _manifest(files: Mapping[str, bytes], best: bool, about: Mapping[str, Any]) -> bytes:
    """Content of a manifest; the last line is a checksum over all that stands before it."""
    content = {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "diffdet": __version__,
        "torch": str(torch.__version__),
        "best": best,
        "about": dict(about),
        "files": {
            name: {"sha256": hashlib.sha256(data).hexdigest(), "bytes": len(data)} for name, data in files.items()
        },
    }
    return _signed(content)


def _signed(content: Mapping[str, Any]) -> bytes:
    """JSON of a manifest with its own checksum. This scheme is the same in every version of the format."""
    text = json.dumps(content, sort_keys=True, separators=(",", ":"))
    signed = {**content, "sha256": hashlib.sha256(text.encode()).hexdigest()}
    return (json.dumps(signed, indent=1, sort_keys=True) + "\n").encode()


def _read_manifest(folder: Path) -> dict[str, Any]:
    """A manifest that says what was written."""
    path = folder / _MANIFEST
    data = packing.read_bytes(path)
    content = packing.parse_json(data, path)
    signature = content.pop("sha256", None) if isinstance(content, dict) else None
    # Written again it must give the same bytes, so that not even a blank can have changed.
    if signature is None or _signed(content) != data:
        raise FileDamagedError(f"`{path}` is damaged: its checksum differs from what was written")
    packing.check_version(path, content.get("format_version"), FORMAT_VERSION, content.get("diffdet"))
    if content.get("format") != FORMAT or set(content.get("files", ())) != {_TENSORS, _STATE}:
        raise FileDamagedError(f"`{path}` is not the manifest of a checkpoint")
    return content


def _read(folder: Path) -> Saved:
    """A checkpoint, every byte of which is what was written."""
    manifest = _read_manifest(folder)
    data: dict[str, bytes] = {}
    for name, said in manifest["files"].items():
        data[name] = packing.read_bytes(folder / name)
        if hashlib.sha256(data[name]).hexdigest() != said["sha256"]:
            found, wanted = len(data[name]), said["bytes"]
            how = f"{found} bytes, {wanted} were written" if found != wanted else "its checksum differs"
            raise FileDamagedError(f"`{folder / name}` is damaged: {how}")
    tensors = packing.tensors_from_bytes(data[_TENSORS], folder / _TENSORS)
    tree = packing.unpack(packing.parse_json(data[_STATE], folder / _STATE), tensors)
    return Saved(folder, tree, bool(manifest["best"]), manifest["about"])
