"""How the command line ends: exit codes, one message, nothing on the wrong stream."""

from __future__ import annotations

import json
import subprocess
import sys

import click
import pytest

from diffdet._version import __version__
from diffdet.cli import main as module
from diffdet.cli.main import ALIASES, COMMANDS, run
from diffdet.core.errors import (
    CheckpointError,
    DiffdetError,
    InputError,
    LockedError,
    MissingExtraError,
    NoHitsError,
    NotSupportedError,
    StorageError,
)


def test_version(capsys):
    assert run(["--version"]) == 0
    assert capsys.readouterr().out == f"diffdet {__version__}\n"


@pytest.mark.parametrize("arguments", [["--help"], ["-h"], *([name, "--help"] for name in [*COMMANDS, *ALIASES])])
def test_help_goes_to_standard_output(arguments, capsys):
    assert run(arguments) == 0
    streams = capsys.readouterr()
    assert streams.out.startswith("Usage: diffdet")
    assert not streams.err


def test_the_summaries_of_the_commands_are_their_own(capsys):
    for name, (_, summary) in COMMANDS.items():
        command = module.cli.get_command(click.Context(module.cli), name)
        assert command is not None
        assert command.name in (name, f"{name}_")
        assert summary.endswith(".")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["optimice"], ("'optimice'", "Did you mean `optimise`")),
        (["optimise"], ("Missing option '--out'",)),
        (["optimise", "--out", "RUN", "--sed", "3"], ("--sed", "--seed")),
        (["optimise", "--out", "RUN", "--seed", "three"], ("--seed", "three", "integer")),
        (["optimise", "--out", "RUN", "--seed", "-1"], ("--seed", "-1", "0<=x")),
        (["simulate", "--out", "hits.csv"], ("Missing option '--muons'",)),
        (["simulate", "--out", "hits.csv", "--muons", "0"], ("--muons", "0", "x>=1")),
        (["image", "hits.csv"], ("Missing option '--config'",)),
        (["image", "h.csv", "--config", "x", "--out", "R", "--voxel", "5 feet"], ("--voxel", "'5 feet'", "m, km, cm")),
        (["image", "h.csv", "--config", "x", "--out", "R", "--voxel", "0"], ("--voxel", "'0'", "a length above 0")),
        (
            ["image", "h.csv", "--config", "x", "--out", "R", "--momentum", "-5 GeV"],
            ("--momentum", "'-5 GeV'", "above 0"),
        ),
        (["config", "show", "ladle"], ("NAME", "'ladle'", "ladle_furnace")),
        (["config", "check", "nowhere.yaml"], ("CONFIG", "'nowhere.yaml'", "does not exist")),
        (["report", "nowhere"], ("RUN", "'nowhere'", "not a folder")),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_bad_usage_is_one_message_and_exit_code_2(arguments, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(arguments) == 2
    streams = capsys.readouterr()
    assert not streams.out
    assert streams.err.startswith("diffdet: error: ")
    assert "Traceback" not in streams.err
    for word in words:
        assert word in streams.err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InputError("x"), 2),
        (LockedError("x"), 2),
        (NotSupportedError("x"), 2),
        (MissingExtraError("reading ROOT files", "root"), 2),
        (StorageError("x"), 1),
        (CheckpointError("x"), 1),
        (NoHitsError("x"), 1),
        (MemoryError(), 1),
        (RuntimeError("x"), 1),
        (OSError(28, "No space left on device", "file"), 1),
        (KeyboardInterrupt(), 130),
        (click.Abort(), 130),
    ],
    ids=lambda value: type(value).__name__,
)
def test_exit_codes_of_exceptions(error, code, monkeypatch, capsys):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(module.cli, "main", fail)
    assert run(["--help"]) == code
    streams = capsys.readouterr()
    assert not streams.out
    assert streams.err.startswith("diffdet: error: ")
    assert "Traceback" not in streams.err


def test_errors_before_anything_is_written_are_bad_input(monkeypatch, capsys):
    error = StorageError("cannot be written")
    error.nothing_written = True  # type: ignore[attr-defined]

    def fail(*_, **__):
        raise error

    monkeypatch.setattr(module.cli, "main", fail)
    assert isinstance(error, DiffdetError)
    assert run([]) == 2
    assert capsys.readouterr().err == "diffdet: error: cannot be written\n"


def test_a_missing_extra_ends_with_the_command_that_installs_it(monkeypatch, capsys):
    def fail(*_, **__):
        raise MissingExtraError("reading ROOT files", "root")

    monkeypatch.setattr(module.cli, "main", fail)
    run([])
    assert capsys.readouterr().err.endswith('needs: pip install "diffdet[root]"\n')


def test_a_closed_pipe_is_no_error():
    # as with `diffdet config schema | head -1`
    command = [sys.executable, "-c", "from diffdet.cli.main import main; main()", "config", "schema"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 0
    assert not errors


def test_warnings_of_ours_are_one_line(monkeypatch, capsys):
    import warnings

    from diffdet.core.errors import NoMuonsWarning

    def warn(*_, **__):
        warnings.simplefilter("always")
        warnings.warn("no muon is left", NoMuonsWarning, stacklevel=1)
        warnings.warn("theirs", UserWarning, stacklevel=1)
        warnings.warn("old", DeprecationWarning, stacklevel=1)

    shown = warnings.showwarning
    monkeypatch.setattr(module.cli, "main", warn)
    assert module.run([]) == 0
    assert warnings.showwarning is shown
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "diffdet: warning: no muon is left"
    assert lines[1].startswith("diffdet: warning: theirs (test_main.py:")
    assert len(lines) == 2


def test_config_list_show_and_schema(capsys):
    assert run(["config", "list"]) == 0
    assert "ladle_furnace" in capsys.readouterr().out
    assert run(["config", "show", "hello_world"]) == 0
    shown = capsys.readouterr().out
    assert shown.startswith("# A lead block")
    assert run(["config", "show", "hello_world", "--set", "seed=3"]) == 0
    assert "seed: 3\n" in capsys.readouterr().out
    assert run(["config", "schema"]) == 0
    assert json.loads(capsys.readouterr().out)["title"] == "diffdet configuration"


def test_a_shown_design_can_be_saved_and_checked(capsys, tmp_path):
    run(["config", "show", "ladle_furnace"])
    (tmp_path / "mine.yaml").write_text(capsys.readouterr().out)
    assert run(["config", "check", "--quick", str(tmp_path / "mine.yaml")]) == 0
    assert "valid. 8 panels, 10 x 10 x 10 voxels" in capsys.readouterr().out


def test_doctor_tells_versions_devices_and_extras(capsys):
    assert run(["doctor"]) == 0
    text = capsys.readouterr().out
    for word in (__version__, "torch", "processors", "cpu", "root", "parquet", "view", "ROOT files"):
        assert word in text
    assert run(["doctor", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found) == {"versions", "machine", "devices", "extras", "advice"}
    assert found["versions"]["diffdet"] == __version__
    assert found["devices"][0]["name"] == "cpu"


def test_doctor_says_how_to_install_what_is_missing(monkeypatch, capsys):
    from diffdet.runs import doctor

    monkeypatch.setattr(doctor, "find_spec", lambda name: None if name == "plotly" else object())
    assert run(["doctor"]) == 0
    text = capsys.readouterr().out
    assert "missing plotly" in text
    assert 'needs: pip install "diffdet[view]"' in text
