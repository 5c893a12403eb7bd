"""`diffdet check`: exit codes, the table, JSON and nothing else, bad input."""

from __future__ import annotations

import json

import pytest

from bad_configurations import UNUSABLE
from diffdet.cli.check import summary
from diffdet.cli.main import run

ARGUMENTS = [
    *("check", "hello_world", "--updates", "4", "--muons", "60"),
    *("--set", "volume.layers.1.voxel=0.2", "--set", "optimiser={z_pos: {lr: 0.1}}", "--set", "schedule={epochs: 1}"),
]


def test_agreement_is_exit_code_0_and_a_table(capsys):
    assert run(ARGUMENTS) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "hello_world: gradients of 4 updates of 1 volumes, 60 muons each"
    assert lines[1].split() == ["family", "verdict", "cosine", "worst", "error", "bias", "variance", "signal/noise"]
    assert [line.split()[0] for line in lines[2:5]] == ["xy_pos", "z_pos", "xy_span"]
    assert "(fixed)" in lines[2]
    assert "(fixed)" not in lines[3]
    assert lines[-1] == "agree: the gradients of all families that move agree with finite differences"


def test_json_and_nothing_else(capsys, tmp_path):
    assert run([*ARGUMENTS, "--json", "--quiet", "--out", str(tmp_path / "RUN")]) == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out) == json.loads((tmp_path / "RUN" / "result.json").read_text())
    assert streams.err == ""


def test_disagreement_is_exit_code_1(capsys, monkeypatch):
    found = {"agree": False}
    monkeypatch.setattr("diffdet.runs.check.check", lambda *_, **__: found)
    assert run([*ARGUMENTS, "--json"]) == 1
    assert json.loads(capsys.readouterr().out) == found


def test_quiet_says_nothing(capsys, monkeypatch):
    monkeypatch.setattr("diffdet.runs.check.check", lambda *_, **__: {"agree": True})
    assert run([*ARGUMENTS, "--quiet"]) == 0
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err == ""


def test_what_is_unknown_is_a_dash():
    family = dict.fromkeys(("cosine", "bias", "bias_se", "signal_to_noise"))
    family |= {"moves": True, "verdict": "not finite", "worst_relative_error": 0.0, "variance": 0.0}
    result = {"name": "x", "updates": 1, "volumes_per_update": 1, "muons_per_volume": 1, "families": {"z_pos": family}}
    text = summary(result | {"advice": ["do this"], "agree": False, "reason": "not finite: log gave nan"})
    assert "not finite" in text
    assert text.splitlines()[-2:] == ["  do this", "disagree: not finite: log gave nan"]
    assert text.splitlines()[2].split()[3:] == ["-", "0.0e+00", "-", "0", "-"]


@pytest.mark.parametrize("bad", UNUSABLE[::12], ids=lambda bad: bad.change)
def test_a_configuration_that_cannot_run_is_refused_in_the_same_words(bad, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["check", bad.design, "--out", "RUN", "--set", bad.change]) == 2
    checked = capsys.readouterr()
    assert run(["optimise", bad.design, "--out", "RUN", "--set", bad.change]) == 2
    assert capsys.readouterr().err == checked.err
    assert checked.out == ""
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--updates", "3"], "--updates"),
        (["--updates", "5"], "even"),
        (["--muons", "0"], "--muons"),
        (["--tolerance", "2"], "--tolerance"),
        (["--device", "abacus"], "device"),
        (["--set", "name"], "--set"),
    ],
)
def test_bad_usage_is_one_message_and_exit_code_2(arguments, words, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert run(["check", "hello_world", "--out", "RUN", *arguments]) == 2
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err.startswith("diffdet: error: ")
    assert words in streams.err
    assert not list(tmp_path.iterdir())


def test_an_unknown_design_is_refused(capsys):
    assert run(["check", "helo_world"]) == 2
    assert "Did you mean `hello_world`?" in capsys.readouterr().err


def test_the_folder_of_a_check_has_no_report(tmp_path, capsys):
    (tmp_path / "config.yaml").write_text("name: x\n")
    (tmp_path / "result.json").write_text(json.dumps({"kind": "check"}))
    assert run(["report", str(tmp_path)]) == 2
    assert "check" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()
