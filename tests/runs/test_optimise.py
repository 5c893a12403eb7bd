"""The job: what a run leaves behind, that it can be repeated, stopped and resumed, and how it fails."""

from __future__ import annotations

import errno
import json
import math
import os
import random
import signal
import sys

import pytest
import yaml

from diffdet.cli.main import run
from diffdet.runs.config import as_mapping, load_config
from jobs import Started, arguments, n_lines, read_lines, without_times

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:plotly")


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a run that has ended."""
    out = tmp_path_factory.mktemp("finished") / "RUN"
    assert run([*arguments(out), "--quiet"]) == 0
    return out


def test_a_run_folder_holds_what_is_promised_and_nothing_else(finished):
    names = {path.name for path in finished.iterdir() if not path.name.startswith(".")}
    assert names == {"config.yaml", "metrics.jsonl", "detectors.jsonl", "checkpoints", "result.json", "report.html"}
    assert {path.name for path in finished.iterdir() if path.name.startswith(".")} <= {".lock"}
    assert {"last", "best"} <= {path.name for path in (finished / "checkpoints").iterdir()}


def test_metrics_have_a_line_for_each_phase_of_each_epoch(finished):
    lines = read_lines(finished / "metrics.jsonl")
    phases = ["warmup", "warmup", "train", "train", "train"]
    assert [(line["epoch"], line["phase"]) for line in lines] == [
        entry for epoch, phase in enumerate(phases, start=1) for entry in ((epoch, phase), (epoch, "valid"))
    ]
    for line in lines:
        assert line["loss"] == pytest.approx(line["error"] + line["cost"], rel=1e-5)
        assert line["muons"] == 64
        assert line["seconds"] > 0
        assert ("learning_rates" in line) == (line["phase"] != "valid")
    assert set(lines[-2]["learning_rates"]) == {"xy_pos_opt", "z_pos_opt", "xy_span_opt"}


def test_detectors_have_a_line_for_the_start_and_each_epoch(finished):
    lines = read_lines(finished / "detectors.jsonl")
    assert [line["epoch"] for line in lines] == list(range(6))
    first = lines[0]["panels"][0]
    assert first == {
        "layer": 0,
        "position": "above",
        "panel": 0,
        "xyz_m": [0.25, 0.25, 1.0],
        "span_m": [1.0, 1.0],
        "cost": 1.0,
    }
    assert lines[0]["panels"] == lines[2]["panels"], "the detector stands still while gradients are measured"
    assert lines[2]["panels"] != lines[3]["panels"]
    for line in lines:
        assert len(line["panels"]) == 8
        assert line["cost"] == pytest.approx(sum(panel["cost"] for panel in line["panels"]))


def test_the_result_says_what_was_found_and_by_what(finished):
    result = json.loads((finished / "result.json").read_text())
    assert (result["status"], result["reason"]) == ("complete", "all 5 epochs are done")
    for name in ("initial", "final"):
        assert {"loss", "loss_se", "cost"} == set(result[name])
        assert math.isfinite(result[name]["loss"])
    assert result["initial"]["cost"] == 8.0
    assert result["baselines"] == {}
    assert result["muons_simulated"] == 10 * 64 + 2 * 2 * 64
    assert result["wall_seconds"] > 0
    assert result["muons_per_second"] == pytest.approx(result["muons_simulated"] / result["wall_seconds"], rel=0.02)
    assert result["versions"]["diffdet"]
    assert set(result["sha256"]) == {"config.yaml", "metrics.jsonl", "detectors.jsonl"}


def test_the_checksums_are_those_of_the_files(finished):
    import hashlib

    for name, checksum in json.loads((finished / "result.json").read_text())["sha256"].items():
        assert hashlib.sha256((finished / name).read_bytes()).hexdigest() == checksum


def test_running_the_resolved_configuration_again_reproduces_the_run(finished, tmp_path):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["versions"]["torch"]
    assert as_mapping(load_config(finished / "config.yaml")) | {"versions": {}} == config | {"versions": {}}
    again = tmp_path / "AGAIN"
    assert run(["optimise", str(finished / "config.yaml"), "--out", str(again), "--quiet"]) == 0
    assert (again / "detectors.jsonl").read_text() == (finished / "detectors.jsonl").read_text()
    assert without_times(again / "metrics.jsonl") == without_times(finished / "metrics.jsonl")
    first, second = (json.loads((folder / "result.json").read_text()) for folder in (finished, again))
    assert first["final"] == second["final"]


def test_another_seed_gives_another_run(finished, tmp_path):
    assert run([*arguments(tmp_path / "RUN"), "--seed", "1", "--quiet"]) == 0
    assert without_times(tmp_path / "RUN" / "metrics.jsonl") != without_times(finished / "metrics.jsonl")


def test_the_batch_of_muons_does_not_change_the_run(finished, tmp_path):
    # 64 muons at once or 13: the same muons; sums differ by rounding
    assert run([*arguments(tmp_path / "RUN", sets=["muons.batch=13"]), "--quiet"]) == 0
    ours, theirs = (read_lines(folder / "metrics.jsonl")[0]["loss"] for folder in (tmp_path / "RUN", finished))
    assert ours == pytest.approx(theirs, rel=1e-4)


def test_json_prints_the_result_and_nothing_else(tmp_path, capsys):
    assert run([*arguments(tmp_path / "RUN"), "--json"]) == 0
    streams = capsys.readouterr()
    assert json.loads(streams.out) == json.loads((tmp_path / "RUN" / "result.json").read_text())


def test_quiet_prints_nothing(tmp_path, capsys):
    assert run([*arguments(tmp_path / "RUN"), "--quiet"]) == 0
    streams = capsys.readouterr()
    assert streams.out == ""
    assert streams.err == ""


def test_a_folder_that_holds_a_run_is_not_written_over(finished, capsys):
    before = {path: path.read_bytes() for path in finished.glob("*.*") if path.is_file()}
    assert run(arguments(finished)) == 2
    assert "holds a run (complete)" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in finished.glob("*.*") if path.is_file()}


def test_resuming_a_complete_run_does_nothing(finished, capsys):
    before = (finished / "result.json").read_bytes()
    assert run(["optimise", "--out", str(finished), "--resume"]) == 0
    assert "complete" in capsys.readouterr().out
    assert (finished / "result.json").read_bytes() == before


def test_resuming_with_another_configuration_is_refused(finished, capsys):
    assert run(["optimise", "--out", str(finished), "--resume", "hello_world", "--set", "seed=4"]) == 2
    message = capsys.readouterr().err
    assert "expected" in message
    assert str(finished) in message


@pytest.mark.parametrize("what", ["file", "foreign", "below a file"])
def test_folders_that_cannot_take_a_run_are_refused(what, tmp_path, capsys):
    out = tmp_path / "RUN"
    if what == "foreign":
        out.mkdir()
        (out / "thesis.tex").write_text("precious")
    else:
        out.write_text("precious")
    args = arguments(out / "RUN" if what == "below a file" else out)
    assert run(args) == 2
    message = capsys.readouterr().err
    assert message.startswith("diffdet: error: ")
    assert str(out) in message
    assert (out / "thesis.tex" if what == "foreign" else out).read_text() == "precious"


def test_a_folder_in_use_is_left_at_once(tmp_path, capsys):
    out = tmp_path / "RUN"
    first = Started(arguments(out, "--quiet", sets=["schedule.epochs=100000"]), tmp_path / "log")
    try:
        first.wait_for(lambda: n_lines(out / "metrics.jsonl") > 2)
        for resume in ([], ["--resume"]):
            assert run([*arguments(out), *resume]) == 2
            message = capsys.readouterr().err
            assert f"process {first.pid} on " in message
            assert str(out / ".lock") in message
    finally:
        os.kill(first.pid, signal.SIGKILL)
        first.wait()


LONGER = ["schedule.epochs=30"]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    """Folder of a longer run that nobody disturbed."""
    out = tmp_path_factory.mktemp("uninterrupted") / "RUN"
    assert run([*arguments(out, sets=LONGER), "--quiet"]) == 0
    return out


def same_end(out, other):
    assert (out / "detectors.jsonl").read_text() == (other / "detectors.jsonl").read_text()
    assert without_times(out / "metrics.jsonl") == without_times(other / "metrics.jsonl")
    tensors = [(folder / "checkpoints" / "last" / "tensors.safetensors").read_bytes() for folder in (out, other)]
    assert tensors[0] == tensors[1]
    assert (
        json.loads((out / "result.json").read_text())["final"]
        == json.loads((other / "result.json").read_text())["final"]
    )


@pytest.mark.parametrize(
    ("number", "code", "name"),
    [(signal.SIGINT, 130, "SIGINT"), (signal.SIGTERM, 143, "SIGTERM"), (signal.SIGUSR1, 143, "SIGUSR1")],
    ids=["SIGINT", "SIGTERM", "SIGUSR1"],
)
def test_a_signal_saves_and_the_run_goes_on_bit_for_bit(number, code, name, uninterrupted, tmp_path):
    out = tmp_path / "RUN"
    process = Started(arguments(out, "--quiet", sets=LONGER), tmp_path / "log")
    process.wait_for(lambda: n_lines(out / "metrics.jsonl") > 6)
    os.kill(process.pid, number)
    assert process.wait() == code, process.log.read_text()
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert name in result["reason"]
    assert process.log.read_text().startswith(f"diffdet: interrupted: interrupted by {name}")
    assert (out / "report.html").is_file()
    assert run(["optimise", "--out", str(out), "--resume", "--quiet"]) == 0
    same_end(out, uninterrupted)


@pytest.mark.parametrize("attempt", range(3))
def test_a_killed_run_goes_on_bit_for_bit(attempt, uninterrupted, tmp_path):
    moments = random.Random(attempt)
    out = tmp_path / "RUN"
    for _ in range(2):
        process = Started(arguments(out, "--quiet", "--resume", sets=LONGER), tmp_path / "log")
        lines = n_lines(out / "metrics.jsonl") + moments.randint(1, 12)
        process.wait_for(lambda lines=lines: n_lines(out / "metrics.jsonl") > lines)
        os.kill(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert not (out / "result.json").exists()
    assert run(["optimise", "--out", str(out), "--resume", "--quiet"]) == 0
    same_end(out, uninterrupted)


def test_a_signal_during_the_evaluation_keeps_the_optimisation(tmp_path):
    out = tmp_path / "RUN"
    sets = ["task.args={volumes: 100000, muons_per_volume: 64}"]
    process = Started(arguments(out, sets=sets), tmp_path / "log")
    process.wait_for(lambda: "Evaluating" in process.log.read_text())
    os.kill(process.pid, signal.SIGTERM)
    assert process.wait() == 143
    result = json.loads((out / "result.json").read_text())
    assert (result["status"], result["reason"]) == ("interrupted", "interrupted by SIGTERM during the evaluation")
    assert result["epochs"] == 5


def test_the_installed_command_ends_by_signals_too(tmp_path):
    import subprocess

    out = tmp_path / "RUN"
    code = "from diffdet.cli.main import main; main()"
    command = [sys.executable, "-c", code, *arguments(out, sets=["schedule.epochs=100000"])]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
    assert process.stderr is not None
    for line in process.stderr:
        if line.startswith("Optimising"):
            break
    process.send_signal(signal.SIGINT)
    text = process.stderr.read()
    process.stderr.close()
    assert process.wait() == 130, text
    assert "diffdet: interrupted: interrupted by SIGINT" in text
    assert json.loads((out / "result.json").read_text())["status"] == "interrupted"


BREAKING = """
from diffdet.tomography.optimisation.callbacks.callback import Callback

class Breaks(Callback):
    def on_epoch_end(self):
        if self.state.epoch == 3:
            raise RuntimeError("the roof fell in")

class Spoils(Callback):
    def on_backwards_end(self):
        if self.state.epoch == 4:
            for panel in self.wrapper.volume.yield_panels():
                panel.z.grad.fill_(float("nan"))
"""


@pytest.mark.parametrize(
    ("callback", "words"),
    [("Breaks", ["RuntimeError: the roof fell in"]), ("Spoils", ["not finite", "epoch 4", "z_pos"])],
)
def test_what_goes_wrong_while_running_is_told_and_saved(callback, words, tmp_path, capsys):
    (tmp_path / "parts.py").write_text(BREAKING)
    config = as_mapping(load_config("hello_world"))
    config["callbacks"].append(f"parts:{callback}" if callback == "Breaks" else {"class": f"parts:{callback}"})
    (tmp_path / "mine.json").write_text(json.dumps(config))
    out = tmp_path / "RUN"
    assert run(arguments(out, design=str(tmp_path / "mine.json"))) == 1
    streams = capsys.readouterr()
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "failed"
    for word in words:
        assert word in result["reason"]
        assert word in streams.err
    assert "Traceback" not in streams.err
    assert ("traceback" in result) == (callback == "Breaks")
    assert result["epochs"] >= 2
    assert (out / "checkpoints" / "last").exists()
    assert "failed" in (out / "report.html").read_text()


@pytest.mark.parametrize("n_writes", [0, 1, 9, 40])
def test_a_full_disk_is_told_and_harms_nothing(n_writes, tmp_path, monkeypatch, capsys):
    from diffdet.core import storage

    written, genuine = [0], storage._write

    def fill(file, data):
        written[0] += 1
        if written[0] > n_writes:
            raise OSError(errno.ENOSPC, "No space left on device")
        genuine(file, data)

    monkeypatch.setattr(storage, "_write", fill)
    out = tmp_path / "RUN"
    assert run(arguments(out, "--quiet", sets=LONGER)) == (1 if n_writes else 2)
    message = capsys.readouterr().err
    for word in ("No space left on device", str(out), "bytes needed", "bytes free"):
        assert word in message
    assert "Traceback" not in message
    monkeypatch.setattr(storage, "_write", genuine)
    assert out.exists() == bool(n_writes)
    if n_writes:
        assert run(["optimise", "--out", str(out), "--resume", "--quiet"]) == 0
        assert json.loads((out / "result.json").read_text())["status"] == "complete"


@pytest.mark.filterwarnings("default::diffdet.core.errors.NoMuonsWarning")
def test_a_detector_that_no_muon_meets_is_a_warning_and_a_result(tmp_path, capsys):
    changes = [f"volume.layers.{layer}.panels.*.span=[1 mm, 1 mm]" for layer in (0, 2)]
    changes += ["volume.layers.0.panels.*.xyz=[0, 0, 0.9]", "volume.layers.2.panels.*.xyz=[1, 1, 0.1]"]
    changes += ["optimiser={xy_pos: {lr: 1.0e-9}}", "schedule.warmup_epochs=0", "schedule.cost_warmup_epochs=0"]
    out = tmp_path / "RUN"
    assert run(arguments(out, "--quiet", sets=changes)) == 0
    streams = capsys.readouterr()
    assert streams.out == ""
    lines = streams.err.splitlines()
    assert "diffdet: warning: volume 0 has no prediction: none of its 64 muons could be used" in lines
    assert all(line.startswith("diffdet: warning: ") for line in lines)
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "complete"
    assert "no muon left enough hits" in result["warnings"][0]
    assert result["final"] is None
    report = (out / "report.html").read_text()
    assert "no muon left enough hits" in report
