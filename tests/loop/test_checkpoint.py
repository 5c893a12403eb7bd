"""A folder of checkpoints always holds one to go on from."""

from __future__ import annotations

import errno
import hashlib
import json
import math
import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from diffdet.core import storage
from diffdet.core.errors import CheckpointError, DiffdetError, FileDamagedError, InputError, StorageError, VersionError
from diffdet.loop import Checkpoints, packing

OPERATIONS = ("_write", "_fsync", "_rename", "_make_folder", "_remove", "_remove_tree")


class Killed(BaseException):
    """Stands for SIGKILL: after it, nothing reaches the disk any more."""


class Disk:
    """Counts what the storage layer does and dies at one operation, or refuses it."""

    def __init__(self, patch: pytest.MonkeyPatch, at: int = -1, how: str = "before", error: int | None = None) -> None:
        self.log: list[str] = []
        self.at, self.how, self.error, self.dead = at, how, error, False
        for name in OPERATIONS:
            patch.setattr(storage, name, self._wrapped(name, getattr(storage, name)))

    def _wrapped(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        def operation(*args: Any) -> None:
            if self.dead:
                raise Killed
            here = len(self.log) == self.at
            self.log.append(f"{name} {getattr(args[0], 'name', '')}")
            if not here:
                return real(*args)
            if self.error is not None:
                raise OSError(self.error, os.strerror(self.error))
            self.dead = True
            if self.how == "after":
                real(*args)
            elif self.how == "inside" and name == "_write":
                args[0].write(args[1][: len(args[1]) // 2])
            elif self.how == "inside" and name == "_remove_tree":
                sorted(args[0].iterdir())[0].unlink()
            raise Killed

        return operation


def tree(step: int) -> dict[str, Any]:
    return {"step": step, "p": torch.full((3,), float(step), dtype=torch.float64), "nested": {"list": [1, (2.5, None)]}}


def step_of(checkpoints: Checkpoints, which: str = "last") -> int | None:
    saved = checkpoints.load(which)
    if saved is None:
        return None
    assert torch.equal(saved.tree["p"], tree(saved.tree["step"])["p"])
    return saved.tree["step"]


def n_operations(tmp_path: Path) -> int:
    """Operations of a start and a save into a folder that holds three checkpoints."""
    with pytest.MonkeyPatch.context() as patch:
        disk = Disk(patch)
        checkpoints = Checkpoints(prepared(tmp_path / "counted"))
        checkpoints.start()
        checkpoints.save(tree(4))
        return len(disk.log)


def prepared(folder: Path) -> Path:
    checkpoints = Checkpoints(folder)
    checkpoints.start()
    for step in (1, 2, 3):
        checkpoints.save(tree(step), best=step == 1)
    return folder


@pytest.mark.parametrize("how", ["before", "inside", "after"])
@pytest.mark.parametrize("best", [False, True])
def test_a_kill_anywhere_leaves_a_checkpoint_to_go_on_from(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str, best: bool
) -> None:
    template = prepared(tmp_path / "template")
    at, finished, seen = 0, False, set()
    while not finished:
        folder = tmp_path / f"at{at}"
        shutil.copytree(template, folder, symlinks=True)
        with monkeypatch.context() as patch:
            disk = Disk(patch, at, how)
            checkpoints = Checkpoints(folder)
            try:
                checkpoints.start()
                checkpoints.save(tree(4), best=best)
                finished = True
            except Killed:
                pass
        committed = step_of(Checkpoints(folder))
        assert committed in (3, 4), f"killed {how} operation {at}: {disk.log[-1]}"
        seen.add(committed)
        assert step_of(Checkpoints(folder), "best") in ({1, 4} if best else {1})
        # The next process goes on, and its own checkpoint counts.
        again = Checkpoints(folder)
        again.start()
        again.save(tree(5))
        assert step_of(Checkpoints(folder)) == 5
        assert not [p for p in folder.iterdir() if p.name.startswith(".")]
        at += 1
    assert at > 10
    assert seen == {3, 4}


def refusal(checkpoints: Checkpoints) -> str | None:
    """What the error says that a start and a save end with."""
    try:
        checkpoints.start()
        checkpoints.save(tree(4))
    except StorageError as error:
        return str(error)
    return None


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS])
def test_a_refusing_disk_costs_the_new_checkpoint_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int
) -> None:
    template = prepared(tmp_path / "template")
    at, finished = 0, False
    while not finished:
        folder = tmp_path / f"at{at}"
        shutil.copytree(template, folder, symlinks=True)
        with monkeypatch.context() as patch:
            Disk(patch, at, error=code)
            checkpoints = Checkpoints(folder)
            message = refusal(checkpoints)
        finished = message is None
        assert finished or (str(folder) in str(message) and "free" in str(message))
        assert step_of(Checkpoints(folder)) in (3, 4)
        at += 1
    assert at > 5


def test_files_are_flushed_before_they_are_renamed_and_old_ones_go_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = prepared(tmp_path / "c")
    checkpoints = Checkpoints(folder)
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        checkpoints.save(tree(4))
    names = [entry.split()[0] for entry in disk.log]
    write = ["_write", "_fsync", "_rename", "_fsync"]
    assert names == ["_make_folder", "_fsync", *write * 3, "_rename", "_fsync", "_remove_tree"]
    assert "MANIFEST" in disk.log[12], "the manifest is the last to be written"


def test_last_and_best_can_be_found_by_their_names(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.load() is None
    for step, best in [(1, False), (2, True), (3, False), (4, False), (5, False)]:
        checkpoints.save(tree(step), best=best, about={"epoch": step})
    assert (tmp_path / "last" / "MANIFEST.json").exists()
    assert json.loads((tmp_path / "best" / "MANIFEST.json").read_text())["about"] == {"epoch": 2}
    assert (step_of(checkpoints), step_of(checkpoints, "best")) == (5, 2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["00000002", "00000004", "00000005", "best", "last"]
    assert len(checkpoints) == 3
    with pytest.raises(InputError, match="`which` must be one of"):
        checkpoints.load("first")


def test_where_there_are_no_links_a_file_says_the_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_args: object, **_more: object) -> None:
        raise OSError(errno.EPERM, "no links here")

    monkeypatch.setattr(Path, "symlink_to", refuse)
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(tree(1))
    assert (tmp_path / "last").read_text() == "00000001\n"
    assert step_of(checkpoints) == 1


def test_unfinished_checkpoints_do_not_count(tmp_path: Path) -> None:
    checkpoints = Checkpoints(prepared(tmp_path))
    (tmp_path / "00000009").mkdir()
    (tmp_path / "00000009" / "state.json").write_text("{}")
    assert step_of(checkpoints) == 3
    checkpoints.start()
    assert not (tmp_path / "00000009").exists()


def damaged_copies(folder: Path, rng: random.Random, n_flips: int) -> list[tuple[Path, bytes, str]]:
    """Contents of the newest checkpoint's files with one bit changed, or cut short."""
    newest = folder / "00000003"
    found = []
    for path in sorted(newest.iterdir()):
        content = path.read_bytes()
        for _ in range(n_flips):
            bit = rng.randrange(8 * len(content))
            changed = bytearray(content)
            changed[bit // 8] ^= 1 << bit % 8
            found.append((path, bytes(changed), f"bit {bit}"))
        found += [(path, content[:cut], f"cut at {cut}") for cut in range(0, len(content), 97)]
    return found


def test_every_flipped_bit_and_every_cut_is_noticed(tmp_path: Path) -> None:
    folder = prepared(tmp_path)
    copies = damaged_copies(folder, random.Random(0), 150)
    assert len(copies) > 450
    for path, content, what in copies:
        whole = path.read_bytes()
        path.write_bytes(content)
        with pytest.warns(storage.StorageWarning, match=path.name) as told:
            assert step_of(Checkpoints(folder)) == 2, f"{what} in {path.name}"
        assert "00000002" in str(told[0].message)
        path.write_bytes(whole)
    assert step_of(Checkpoints(folder)) == 3


def test_a_missing_file_and_a_link_count_as_damage(tmp_path: Path) -> None:
    folder = prepared(tmp_path / "c")
    secret = tmp_path / "secret.json"
    secret.write_bytes((folder / "00000003" / "state.json").read_bytes())
    (folder / "00000003" / "state.json").unlink()
    with pytest.warns(storage.StorageWarning, match="missing"):
        assert step_of(Checkpoints(folder)) == 2
    (folder / "00000003" / "state.json").symlink_to(secret)
    with pytest.warns(storage.StorageWarning, match="link"):
        assert step_of(Checkpoints(folder)) == 2


# ---- packing
def test_trees_come_back_exactly(tmp_path: Path) -> None:
    values = {
        "floats": [0.1, 1e-310, math.inf, -math.inf, -0.0],
        "int keys": {0: {"step": torch.tensor(3.0)}, 7: None},
        "$odd": (True, "µ\n", 2**80),
        "array": np.arange(6, dtype=np.int32).reshape(2, 3),
        "empty": torch.zeros(0, 4),
        "kinds": [torch.ones(2, dtype=d) for d in (torch.float16, torch.bfloat16, torch.float64, torch.bool)],
        "numpy scalar": [np.float64(0.1), np.bool_(True), np.int64(3)],
        "view": torch.arange(10.0)[::2],
    }
    packing.save_file(tmp_path / "a", values, "thing")
    back = packing.load_file(tmp_path / "a", "thing")
    assert list(back) == list(values)
    assert back["floats"] == values["floats"]
    assert math.copysign(1, back["floats"][-1]) == -1
    assert list(back["int keys"]) == [0, 7]
    assert back["$odd"] == values["$odd"]
    assert isinstance(back["array"], np.ndarray)
    assert back["array"].dtype == np.int32
    assert [(t.dtype, t.shape) for t in back["kinds"]] == [(t.dtype, t.shape) for t in values["kinds"]]  # type: ignore[attr-defined]
    assert back["empty"].shape == (0, 4)
    assert [type(v) for v in back["numpy scalar"]] == [float, bool, int]
    assert torch.equal(back["view"], torch.tensor([0.0, 2, 4, 6, 8]))


def test_nan_comes_back_as_nan(tmp_path: Path) -> None:
    packing.save_file(tmp_path / "a", [math.nan], "thing")
    assert math.isnan(packing.load_file(tmp_path / "a", "thing")[0])


def test_what_cannot_be_saved_is_named() -> None:
    with pytest.raises(CheckpointError, match=r"`state.a.1` cannot be saved: .* given function"):
        packing.pack({"a": [1, lambda: None]})


def test_a_state_file_notices_every_bit(tmp_path: Path) -> None:
    path = tmp_path / "a"
    packing.save_file(path, {"p": torch.arange(3.0), "x": [0.1, "text"]}, "thing")
    content, rng = path.read_bytes(), random.Random(1)
    for bit in rng.sample(range(8 * len(content)), 600):
        changed = bytearray(content)
        changed[bit // 8] ^= 1 << bit % 8
        path.write_bytes(changed)
        with pytest.raises(FileDamagedError, match=r"`.*a`"):
            packing.load_file(path, "thing")
    for cut in range(0, len(content), 13):
        path.write_bytes(content[:cut])
        with pytest.raises(FileDamagedError):
            packing.load_file(path, "thing")


def test_a_state_file_of_another_kind_or_version_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    packing.save_file(path, 1, "volume")
    with pytest.raises(CheckpointError, match="must hold the state of a network; it holds that of a volume"):
        packing.load_file(path, "network")
    with monkeypatch.context() as patch:
        patch.setattr(packing, "FILE_VERSION", 2)
        patch.setattr(packing, "__version__", "9.0")
        packing.save_file(path, 1, "volume")
    with pytest.raises(VersionError, match=r"written by diffdet 9.0 in format 2.*needs diffdet >= 9.0"):
        packing.load_file(path, "volume")
    with pytest.raises(StorageError, match="expected a file, it is missing"):
        packing.load_file(tmp_path / "no", "volume")
    with pytest.raises(StorageError, match="expected a file, it is a folder"):
        packing.load_file(tmp_path, "volume")


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"PK\x03\x04 a zip",
        b"\x80\x04\x95cbuiltins\neval\n",
        (2**60).to_bytes(8, "little") + b"{}",
        (2).to_bytes(8, "little") + b"{}",
        (10**6).to_bytes(8, "little") + b"[" * 10**6,
        (60).to_bytes(8, "little") + b'{"a":{"dtype":"F32","shape":[1000000000000],"data_offsets":[0,4]}}',
    ],
    ids=["empty", "zip", "pickle", "huge header", "no metadata", "deep", "huge shape"],
)
def test_foreign_content_is_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a").write_bytes(content)
    with pytest.raises(FileDamagedError):
        packing.load_file(tmp_path / "a", "thing")


def test_forged_json_cannot_do_more_than_fail(tmp_path: Path) -> None:
    """Whoever computes a fitting checksum gets an error, not code."""
    for value in ({"$call": "os.system"}, {"$tensor": "missing"}, {"$tensor": "a", "b": 1}):
        with pytest.raises(DiffdetError):
            packing.unpack(value, {})
    folder = prepared(tmp_path)
    path = folder / "00000003" / "state.json"
    path.write_text("[" * 100_000)
    manifest = json.loads((folder / "00000003" / "MANIFEST.json").read_text())
    manifest.pop("sha256")
    manifest["files"]["state.json"] = {"sha256": hashlib.sha256(path.read_bytes()).hexdigest(), "bytes": 100_000}
    from diffdet.loop import checkpoint

    (folder / "00000003" / "MANIFEST.json").write_bytes(checkpoint._signed(manifest))
    with pytest.warns(storage.StorageWarning, match="no JSON"):
        assert step_of(Checkpoints(folder)) == 2


def test_settings_are_checked(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="`keep` must be at least 1"):
        Checkpoints(tmp_path, keep=0)
    with pytest.raises(InputError, match="`every_epochs`"):
        Checkpoints(tmp_path, every_epochs=-1)
    with pytest.raises(InputError, match="`every_seconds`"):
        Checkpoints(tmp_path, every_seconds=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot create the folder"):
        Checkpoints(tmp_path / "file").start()


def test_when_to_save(tmp_path: Path) -> None:
    now = [0.0]
    checkpoints = Checkpoints(tmp_path, every_epochs=3, every_seconds=10, clock=lambda: now[0])
    assert [epoch for epoch in range(1, 9) if checkpoints.due_after(epoch, 8)] == [3, 6, 8]
    checkpoints.start()
    now[0] = 9.0
    assert not checkpoints.due
    now[0] = 10.0
    assert checkpoints.due
    checkpoints.save(1)
    assert not checkpoints.due
    assert checkpoints.better(1.0, None)
    assert not checkpoints.better(math.nan, None)
    assert checkpoints.better(1.0, math.nan)
    assert checkpoints.better(1.0, 2.0)
    assert Checkpoints(tmp_path, lower_is_better=False).better(3.0, 2.0)
