"""Files are whole or absent, durable, and errors of the disk are told in one sentence."""

from __future__ import annotations

import errno
import json
import os
import resource
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from diffdet.core import storage
from diffdet.core.errors import StorageError

OPERATIONS = ("_write", "_fsync", "_rename", "_make_folder", "_remove", "_remove_tree")


class _Killed(BaseException):
    """Stands for SIGKILL: after it, nothing reaches the disk any more."""


class Disk:
    """Counts the operations of the storage layer and dies at one of them, or refuses it."""

    def __init__(
        self, monkeypatch: pytest.MonkeyPatch, at: int = -1, how: str = "before", error: int | None = None
    ) -> None:
        self.log: list[str] = []
        self.at, self.how, self.error, self.dead = at, how, error, False
        for name in OPERATIONS:
            monkeypatch.setattr(storage, name, self._wrapped(name, getattr(storage, name)))

    def _wrapped(self, name: str, real: Callable[..., None]) -> Callable[..., None]:
        def operation(*args: object) -> None:
            if self.dead:
                raise _Killed
            here = len(self.log) == self.at
            self.log.append(name)
            if not here:
                return real(*args)
            if self.error is not None:
                raise OSError(self.error, os.strerror(self.error))
            self.dead = True
            if self.how == "after":
                real(*args)
            elif self.how == "inside" and name == "_write":
                file, data = args
                file.write(data[: len(data) // 2])  # type: ignore[attr-defined, index]
            raise _Killed

        return operation


def test_a_write_flushes_the_file_renames_it_and_flushes_the_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(monkeypatch)
    storage.write_bytes(tmp_path / "a", b"content")
    assert disk.log == ["_write", "_fsync", "_rename", "_fsync"]
    assert (tmp_path / "a").read_bytes() == b"content"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("how", ["before", "inside", "after"])
@pytest.mark.parametrize("at", range(4))
def test_a_kill_at_any_operation_leaves_the_old_file_or_the_new(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, how: str
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    with monkeypatch.context() as patch:
        Disk(patch, at, how)
        with pytest.raises(_Killed):
            storage.write_bytes(tmp_path / "a", b"new content")
    assert (tmp_path / "a").read_bytes() in (b"old", b"new content")
    storage.clean_temporaries(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO, errno.EROFS, errno.EDQUOT])
@pytest.mark.parametrize("at", range(3))
def test_a_refused_operation_is_one_error_that_names_path_need_and_space(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int, code: int
) -> None:
    (tmp_path / "a").write_bytes(b"old")
    Disk(monkeypatch, at, error=code)
    with pytest.raises(StorageError, match="free") as caught:
        storage.write_bytes(tmp_path / "a", b"new")
    assert str(tmp_path / "a") in str(caught.value)
    assert "3 bytes needed" in str(caught.value)
    assert caught.value.errno == code
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["a"], "the temporary file is gone"


def test_a_full_disk_is_told(tmp_path: Path) -> None:
    """A limit on file sizes, set by the system in a process of its own, acts as a full disk does."""
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "from diffdet.core import storage\n"
        "from diffdet.core.errors import StorageError\n"
        "try:\n    storage.write_bytes(sys.argv[1], bytes(5000))\n"
        "except StorageError as error:\n    print(error)\n"
    )
    assert resource.RLIM_INFINITY  # the module exists on this system
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path / "a")],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert "5,000 bytes needed" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_a_missing_folder_and_a_folder_in_the_way_are_told(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="create its folder first"):
        storage.write_text(tmp_path / "no" / "a", "x")
    with pytest.raises(StorageError, match=r"[Dd]irectory"):
        storage.write_text(tmp_path, "x")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="cannot create the folder"):
        storage.make_folder(tmp_path / "file" / "below")


def test_replacing_leaves_the_old_file_where_the_block_raises(tmp_path: Path) -> None:
    def write_half() -> None:
        with storage.replacing(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    (tmp_path / "a").write_text("old")
    with pytest.raises(ZeroDivisionError):
        write_half()
    assert (tmp_path / "a").read_text() == "old"
    with storage.replacing(tmp_path / "a") as temporary:
        temporary.write_text("new")
    assert (tmp_path / "a").read_text() == "new"
    assert [p.name for p in tmp_path.iterdir()] == ["a"]


def test_json_is_strict(tmp_path: Path) -> None:
    storage.write_json(tmp_path / "a.json", {"x": [1, 0.1, "µ"]})
    assert json.loads((tmp_path / "a.json").read_text()) == {"x": [1, 0.1, "µ"]}
    with pytest.raises(ValueError, match="JSON"):
        storage.write_json(tmp_path / "a.json", float("nan"))


def test_only_our_temporaries_are_cleaned(tmp_path: Path) -> None:
    (tmp_path / "users.tmp").write_text("keep")
    storage.make_folder(tmp_path / "b" / "c")
    leftover = tmp_path / ".a.123.0.tmp"
    leftover.mkdir()
    (leftover / "part").write_text("")
    assert storage.clean_temporaries(tmp_path) == [leftover]
    assert sorted(p.name for p in tmp_path.iterdir()) == ["b", "users.tmp"]
    storage.remove_folder(tmp_path / "b")
    assert [p.name for p in tmp_path.iterdir()] == ["users.tmp"]
    assert storage.clean_temporaries(tmp_path / "missing") == []
