"""Every input that cannot be used ends in exit code 2, one message, and nothing written."""

from __future__ import annotations

import json

import numpy as np
import pytest

from bad_configurations import UNUSABLE
from diffdet.cli.main import run
from diffdet.runs.config import as_mapping, load_config


@pytest.mark.parametrize("bad", UNUSABLE, ids=lambda bad: bad.change)
def test_unusable_configurations(bad, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["optimise", bad.design, "--out", "RUN", "--set", bad.change]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("diffdet: error: ")
    assert "Traceback" not in streams.err
    for words in (bad.field, bad.given, bad.expected):
        assert words in streams.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("bad", UNUSABLE[::9], ids=lambda bad: bad.change)
def test_config_check_says_what_a_run_would_say(bad, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["config", "check", bad.design, "--set", bad.change]) == 2
    checked = capsys.readouterr().err
    assert run(["optimise", bad.design, "--out", "RUN", "--set", bad.change]) == 2
    assert capsys.readouterr().err == checked


def test_config_check_passes_what_runs(capsys):
    for design in ("hello_world", "ladle_furnace"):
        assert run(["config", "check", design]) == 0
        assert f"{design}: valid. 8 panels" in capsys.readouterr().out


CUBE = np.full((6, 10, 10), 0.3)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("shape.npz", {"x0": CUBE[:5]}, ("(6, 10, 10)", "(5, 10, 10)")),
        ("key.npz", {"X0": CUBE}, ("an array named x0", "key.npz")),
        ("nan.npz", {"x0": np.where(np.arange(10) == 3, np.nan, CUBE)}, ("finite and above 0", "nan")),
        ("zero.npz", {"x0": np.where(np.arange(10) == 3, 0.0, CUBE)}, ("finite and above 0", "0.0")),
        ("text.npz", {"x0": np.full((6, 10, 10), "lead")}, ("numbers of shape", "<U4")),
        ("object.npz", {"x0": np.full((6, 10, 10), None)}, ("can be read", "allow_pickle")),
        ("cut.npz", b"PK\x03\x04 and no more", ("can be read", "cut.npz")),
        ("cut.h5", b"\x89HDF\r\n\x1a\n and no more", ("can be read", "cut.h5")),
        ("cube.txt", b"0.3 0.3", (".npz, .h5 or .hdf5", "cube.txt")),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_unusable_files_of_radiation_lengths(name, content, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    if isinstance(content, bytes):
        (tmp_path / name).write_bytes(content)
    else:
        np.savez(tmp_path / name, **content)
    config = as_mapping(load_config("hello_world"))
    config["passives"]["layouts"] = [{"file": name}]
    (tmp_path / "mine.json").write_text(json.dumps(config))
    before = sorted(tmp_path.iterdir())
    assert run(["optimise", "mine.json", "--out", "RUN"]) == 2
    message = capsys.readouterr().err
    assert message.startswith("diffdet: error: passives.layouts[0].file: expected ")
    for word in words:
        assert word in message
    assert sorted(tmp_path.iterdir()) == before
