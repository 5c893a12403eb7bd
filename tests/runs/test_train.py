"""The job `train`: what a run leaves behind, that it can be repeated, stopped and resumed, and how it fails."""

from __future__ import annotations

import json
import math
import os
import signal
import socket
import subprocess
import sys

import numpy as np
import pytest
import torch
import yaml

from diffdet.cli.main import run
from diffdet.nn.ensemble.ensemble import Ensemble
from jobs import Started, n_lines, read_lines, without_times

TINY = (
    "data.events=600",
    "data.folds=4",
    "data.test_folds=1",
    "schedule={epochs: 3, batch_size: 50}",
    "callbacks=[{class: CycleLR, args: {lr_range: [0.0001, 0.002]}}]",
    "network.head.args.matrix_head.args={intfunc_depth: 1, intfunc_width: 4, intfunc_out_sz: 3, outfunc_depth: 1, "
    "outfunc_width: 4, outfunc_out_sz: 3, agg_method: sum, act: swish}",
    "network.body.args={depth: 1, width: 8, act: swish, do: 0.1}",
    "evaluation={repeats: 2, bootstrap: 20}",
)


def arguments(out, *more, problem="signal_background", sets=()):
    changes = [f"--set={change}" for change in (*TINY, *sets)]
    return ["train", problem, "--out", str(out), *changes, *more]


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """Folder of a run of two models that has ended."""
    out = tmp_path_factory.mktemp("finished") / "RUN"
    assert run([*arguments(out, sets=["schedule.models=2"]), "--quiet"]) == 0
    return out


def test_a_run_folder_holds_what_is_promised_and_nothing_else(finished):
    names = {path.name for path in finished.iterdir() if not path.name.startswith(".")}
    files = {"config.yaml", "metrics.jsonl", "predictions.npz", "result.json", "report.html"}
    assert names == files | {"checkpoints", "ensemble"}


def test_metrics_have_a_line_for_each_phase_of_each_epoch_of_each_model(finished):
    lines = read_lines(finished / "metrics.jsonl")
    expected = [(model, epoch, phase) for model in (0, 1) for epoch in (1, 2, 3) for phase in ("train", "valid")]
    assert [(line["model"], line["epoch"], line["phase"]) for line in lines] == expected
    for line in lines:
        assert math.isfinite(line["loss"])
        assert line["events"] == (300 if line["phase"] == "train" else 0)
        assert ("RocAucScore" in line) == (line["phase"] == "valid")


def test_figures_are_those_of_the_predictions_with_errors(finished):
    result = json.loads((finished / "result.json").read_text())
    assert (result["kind"], result["status"], result["reason"]) == ("train", "complete", "all 3 epochs are done")
    with np.load(finished / "predictions.npz") as file:
        pred, target, weight = file["pred"][:, 0], file["target"][:, 0], file["weight"]
        assert set(file) >= {"pred", "target", "weight", "extra_yields", "extra_process"}
    assert len(pred) == result["test_events"] == 150
    inside = np.clip(pred, 1e-7, 1 - 1e-7)
    losses = -np.where(target > 0.5, np.log(inside), np.log1p(-inside))
    assert result["final"]["log_loss"] == pytest.approx(np.average(losses, weights=weight), rel=1e-6)
    assert result["final"]["accuracy"] == pytest.approx(np.average((pred >= 0.5) == (target > 0.5), weights=weight))
    assert result["baselines"]["constant"]["roc_auc"] == 0.5
    for name in ("log_loss", "accuracy", "roc_auc"):
        assert 0 < result["final"][f"{name}_se"] < 0.5
    assert [entry["validation_fold"] for entry in result["models"]] == [2, 1]
    assert sum(entry["weight"] for entry in result["models"]) == pytest.approx(1.0)
    importance = result["importance"]
    names = {entry["feature"] for entry in importance}
    assert {"ll_mass", "channel", "objects: log_pt"} <= names
    assert importance == sorted(importance, key=lambda entry: -entry["importance"])
    assert all(entry["importance_se"] >= 0 for entry in importance)


def test_the_models_that_were_saved_give_the_predictions(finished):
    from diffdet.runs.config.train_reading import load_train_config
    from diffdet.runs.train_build import build_training

    ensemble = Ensemble.from_save(finished / "ensemble")
    built = build_training(load_train_config(finished / "config.yaml"))
    fold = built.plain.get_fold(3)
    with np.load(finished / "predictions.npz") as file:
        np.testing.assert_allclose(ensemble.predict(fold["inputs"], mask=fold["mask"]), file["pred"], rtol=1e-6)


def test_the_configuration_written_gives_the_same_run_again(finished, tmp_path):
    config = yaml.safe_load((finished / "config.yaml").read_text())
    assert config["kind"] == "train"
    assert config["versions"]
    assert run(["train", str(finished / "config.yaml"), "--out", str(tmp_path / "again"), "--quiet"]) == 0
    assert without_times(tmp_path / "again" / "metrics.jsonl") == without_times(finished / "metrics.jsonl")
    results = [json.loads((folder / "result.json").read_text()) for folder in (finished, tmp_path / "again")]
    for key in ("final", "importance", "baselines"):
        assert results[0][key] == results[1][key]


def test_a_run_that_was_killed_goes_on_to_the_same_result(finished, tmp_path, monkeypatch):
    from diffdet.nn.training.step import SupervisedStep

    class Kill(BaseException):
        pass

    out = tmp_path / "RUN"
    plain, left = SupervisedStep.forward, [29]  # in the second epoch of the second model

    def forward(self, fit):
        if fit.phase == "train":
            left[0] -= 1
            if left[0] == 0:
                raise Kill
        return plain(self, fit)

    with monkeypatch.context() as patched:
        patched.setattr(SupervisedStep, "forward", forward)
        with pytest.raises(Kill):
            run([*arguments(out, sets=["schedule.models=2"]), "--quiet"])
    assert not (out / "result.json").exists()
    torch.manual_seed(3)
    assert run(["train", "--out", str(out), "--resume", "--quiet"]) == 0
    assert without_times(out / "metrics.jsonl") == without_times(finished / "metrics.jsonl")
    results = [json.loads((folder / "result.json").read_text()) for folder in (finished, out)]
    for key in ("final", "importance"):
        assert results[0][key] == results[1][key]
    assert run(["train", "--out", str(out), "--resume", "--quiet"]) == 0


def test_a_regression_predicts_in_units_of_its_targets(tmp_path):
    out = tmp_path / "RUN"
    sets = ["schedule={epochs: 4, batch_size: 25}", "data.events=1200"]
    assert run([*arguments(out, problem="mass_regression", sets=sets), "--quiet"]) == 0
    result = json.loads((out / "result.json").read_text())
    assert set(result["final"]) == {
        *("resolution", "bias", "mean_abs_error"),
        *("resolution_se", "bias_se", "mean_abs_error_se"),
    }
    assert result["final"]["resolution"] < result["baselines"]["constant"]["resolution"]
    with np.load(out / "predictions.npz") as file:
        assert 50 < file["target"].mean() < 250
        assert abs(file["pred"].mean() - file["target"].mean()) < 30


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM], ids=["SIGINT", "SIGTERM"])
def test_a_signal_finishes_the_batch_and_the_run_goes_on_from_there(number, finished, tmp_path):
    out = tmp_path / "RUN"
    process = Started([*arguments(out, sets=["schedule.models=2"]), "--quiet"], tmp_path / "log")
    process.wait_for(lambda: n_lines(out / "metrics.jsonl") >= 2)
    os.kill(process.pid, number)
    assert process.wait() == (130 if number == signal.SIGINT else 143)
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "interrupted"
    assert result["reason"].startswith(f"interrupted by {signal.Signals(number).name} ")
    assert (out / "report.html").is_file()
    assert run(["train", "--out", str(out), "--resume", "--quiet"]) == 0
    assert without_times(out / "metrics.jsonl") == without_times(finished / "metrics.jsonl")
    results = [json.loads((folder / "result.json").read_text()) for folder in (finished, out)]
    assert results[0]["final"] == results[1]["final"]


@pytest.mark.slow
def test_models_are_exported_where_asked_for(tmp_path):
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    out = tmp_path / "RUN"
    sets = ["evaluation={repeats: 2, bootstrap: 20, importance: false, onnx: true}"]
    assert run([*arguments(out, sets=sets), "--quiet"]) == 0
    from diffdet.runs.config.train_reading import load_train_config
    from diffdet.runs.train_build import build_training

    fold = build_training(load_train_config(out / "config.yaml")).plain.get_fold(3)
    flat, matrix = fold["inputs"]
    session = runtime.InferenceSession(str(out / "model_0.onnx"), providers=["CPUExecutionProvider"])
    pred = session.run(None, {"flat": flat, "matrix": matrix, "mask": fold["mask"]})[0]
    with np.load(out / "predictions.npz") as file:
        np.testing.assert_allclose(pred, file["pred"], atol=1e-5)


@pytest.mark.slow
def test_two_processes_train_one_network(tmp_path):
    """As ``torchrun`` starts them; without dropout they take the steps that one takes."""
    sets = ["network.body.args={depth: 1, width: 8, act: swish}"]
    alone, out = tmp_path / "alone", tmp_path / "RUN"
    assert run([*arguments(alone, sets=sets), "--quiet"]) == 0
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = str(found.getsockname()[1])
    common = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", "from diffdet.cli.main import main; main()", *arguments(out, sets=sets), "--quiet"]
    running = [
        subprocess.Popen(
            command,
            env={**common, "RANK": str(rank), "LOCAL_RANK": str(rank), "GLOO_SOCKET_IFNAME": "lo"},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0, 0], "\n".join(said)
    results = [json.loads((folder / "result.json").read_text()) for folder in (alone, out)]
    assert results[1]["final"] == pytest.approx(results[0]["final"], rel=1e-3)
    lines = [read_lines(folder / "metrics.jsonl") for folder in (alone, out)]
    for mine, theirs in zip(*lines, strict=True):
        assert theirs["loss"] == pytest.approx(mine["loss"], rel=1e-4)


def test_overwrite_removes_a_training_and_nothing_else(finished, tmp_path, capsys):
    out = tmp_path / "RUN"
    assert run([*arguments(out, "--smoke"), "--quiet"]) == 0
    assert run([*arguments(out, "--smoke"), "--quiet"]) == 2
    assert "which holds a run (complete)" in capsys.readouterr().err
    assert run([*arguments(out, "--smoke", "--overwrite", "--seed", "5"), "--quiet"]) == 0
    assert yaml.safe_load((out / "config.yaml").read_text())["seed"] == 5
    other = tmp_path / "other"
    other.mkdir()
    (other / "precious.txt").write_text("mine")
    assert run([*arguments(other, "--overwrite"), "--quiet"]) == 2
    assert (other / "precious.txt").read_text() == "mine"
    assert run([*arguments(out, "--overwrite", "--resume"), "--quiet"]) == 2


@pytest.mark.parametrize(
    ("sets", "message"),
    [
        (["data.example=signal_backgroud"], "data.example: expected one of signal_background, mass_regression"),
        (["data.file=x.h5"], "data: expected either `example` or `file`"),
        (["network.objective=binary"], "network.objective: expected one of classification, multiclass, regression"),
        (["network.body.args.witdh=3"], "network.body.args.witdh: expected an argument of FullyConnected"),
        (["network.head.class=CatEmbedHead"], "network.head.class: expected the name of a network head"),
        (["network.head={class: MultiHead}"], "network.head.args.matrix_head: expected a class of heads of objects"),
        (["network.head.args.matrix_head.args.agg_method=max"], "network"),
        (["callbacks=[{class: CycleLR, args: {lr_range: [1, 2, 3]}}]"], "callbacks[0]: "),
        (["schedule.batch_size=1000"], "schedule.batch_size: expected at most 150, the events of the smallest fold"),
        (["data.test_folds=3"], "data.test_folds: expected at most 2"),
        (["optimiser.class=adamm"], "optimiser.class: expected one of adam"),
        (["optimiser.args={momentum: 0.9}"], "network: `opt_args` do not fit the optimiser Adam"),
        (["metrics=[RocAuc]"], "metrics[0]: expected the name of a metric"),
        (["network.outputs=2"], "network.outputs: expected 1, the number of targets, given 2"),
        (["schedule.epoch=3"], "Did you mean `epochs`?"),
    ],
)
def test_bad_configurations_are_refused_before_anything_is_written(sets, message, tmp_path, capsys):
    out = tmp_path / "RUN"
    assert run([*arguments(out, sets=sets), "--quiet"]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


def test_a_training_that_fails_says_so(tmp_path, monkeypatch, capsys):
    from diffdet.nn.training import step

    plain = step.compute_loss
    calls = [0]

    def broken(*args):
        calls[0] += 1
        return plain(*args) * (float("nan") if calls[0] > 5 else 1.0)

    monkeypatch.setattr(step, "compute_loss", broken)
    out = tmp_path / "RUN"
    assert run([*arguments(out), "--quiet"]) == 1
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "failed"
    assert "the loss is not finite at epoch 1" in result["reason"]
    assert "failed: the loss is not finite" in capsys.readouterr().err


def test_configurations_are_listed_shown_and_checked(tmp_path, capsys):
    assert run(["config", "list"]) == 0
    assert "mass_regression" in capsys.readouterr().out
    assert run(["config", "show", "mass_regression"]) == 0
    path = tmp_path / "mine.yaml"
    path.write_text(capsys.readouterr().out)
    assert run(["config", "check", str(path), "--set", "data.events=600", "--set", "schedule.batch_size=20"]) == 0
    assert "valid. regression, 1 models of 12 epochs, 600 events" in capsys.readouterr().out
    assert run(["config", "schema", "--train"]) == 0
    schema = json.loads(capsys.readouterr().out)
    assert set(schema["required"]) == {"data", "network"}
