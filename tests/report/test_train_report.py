"""Reports of trainings: complete in themselves, the right figures, something to see in every state of a run."""

from __future__ import annotations

import importlib
import json

import numpy as np
import pytest

from diffdet.core.errors import FileDamagedError
from diffdet.report import write_report
from diffdet.report.collect import read_run
from diffdet.report.train_data import read_predictions
from report.test_report import Page, check_complete_in_itself

CONFIG = """
kind: train
name: {name}
description: <b>bold</b> & brave
seed: 3
data: {{example: {example}, events: 2000, folds: 10, test_folds: 2}}
network:
  objective: {objective}
  head: {{class: MultiHead, args: {{matrix_head: {{class: InteractionNet, args: {{act: swish}}}}}}}}
  body: {{class: FullyConnected, args: {{width: 64}}}}
optimiser: {{class: adamw, lr: 0.002}}
schedule: {{epochs: 3, batch_size: 64, models: {models}}}
"""


def a_result(objective, **extra):
    figures = {"roc_auc": 0.91, "roc_auc_se": 0.012, "log_loss": 0.31, "log_loss_se": 0.02, "accuracy": 0.8765}
    constant = {"roc_auc": 0.5, "roc_auc_se": 0.0, "log_loss": 0.6931, "log_loss_se": 0.001, "accuracy": 0.5}
    figures["accuracy_se"] = constant["accuracy_se"] = 0.004
    if objective == "regression":
        figures = {"resolution": 11.5, "resolution_se": 0.4, "bias": -1.25, "bias_se": 0.3}
        constant = {"resolution": 57.7, "resolution_se": 0.6, "bias": 3e-15, "bias_se": 1.0}
    return {
        "kind": "train",
        "status": "complete",
        "reason": "all 3 epochs are done",
        "objective": objective,
        "seed": 3,
        "device": "cpu",
        "command": "diffdet train problem --out 'my run'",
        "final": figures,
        "baselines": {"constant": constant},
        "importance": [
            {"feature": "jj_mass", "kind": "flat", "importance": 0.5, "importance_se": 0.02},
            {"feature": "objects: eta", "kind": "objects", "importance": -0.01, "importance_se": 0.02},
        ],
        "test_events": 600,
        "models": [
            {"model": 0, "parameters": 12498, "validation_fold": 7, "epochs": 3, "best_loss": 0.3, "weight": 1.0}
        ],
        "wall_seconds": 12.0,
        "events_trained": 4800,
        "finished": "2025-03-01T12:30:11+01:00",
        "versions": {"diffdet": "0.1.0"},
    } | extra


def predictions(objective, n=600, seed=0):
    draw = np.random.default_rng(seed)
    if objective == "regression":
        target = draw.uniform(50, 250, (n, 1))
        return {"pred": target + draw.normal(0, 12, (n, 1)), "target": target, "weight": np.ones(n)}
    if objective == "multiclass":
        target = draw.integers(0, 3, (n, 1))
        logits = draw.normal(size=(n, 3)) + 2 * (target == np.arange(3))
        return {
            "pred": np.exp(logits) / np.exp(logits).sum(1, keepdims=True),
            "target": target.astype(float),
            "weight": np.ones(n),
        }
    target = (draw.random((n, 1)) < 0.5).astype(float)
    score = 1 / (1 + np.exp(-draw.normal(3 * target - 1.5, 1.2)))
    yields = np.where(target[:, 0] > 0.5, 60 / target.sum(), 6000 / (n - target.sum()))
    return {"pred": score, "target": target, "weight": draw.uniform(0.5, 1.5, n), "extra_yields": yields}


def a_run(folder, objective="classification", models=1, **extra):
    example = "mass_regression" if objective == "regression" else "signal_background"
    config = CONFIG.format(name=f"my_{objective}", example=example, objective=objective, models=models)
    (folder / "config.yaml").write_text(config)
    lines = [
        {"model": m, "epoch": e, "phase": phase, "loss": 1 / e + 0.1 * m, "RocAucScore": 0.5 + e / 10, "events": 100}
        | ({"learning_rates": {"opt": 0.001 * e}} if phase == "train" else {})
        for m in range(models)
        for e in (1, 2, 3)
        for phase in ("train", "valid")
    ]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    if extra.pop("finished_run", True):
        (folder / "result.json").write_text(json.dumps(a_result(objective, **extra)))
        np.savez_compressed(folder / "predictions.npz", **predictions(objective))
    return folder


@pytest.mark.parametrize("objective", ["classification", "multiclass", "regression"])
def test_every_objective_has_its_figures(tmp_path, objective):
    page = Page(write_report(a_run(tmp_path, objective)).read_text(encoding="utf-8"))
    check_complete_in_itself(page)
    expected = {
        "classification": ("0.910 ± 0.012", "Expected significance above a cut", "0.8765", "probability"),
        "multiclass": ("Each class against the rest", "per cent", "like confidence"),
        "regression": ("11.50 ± 0.40", "5.0", "−1.25 ± 0.30", "Calibration"),
    }[objective]
    for text in (
        *expected,
        f"my {objective}",
        "<b>bold</b>",
        "jj mass",
        "features of objects",
        "12 498",
        "arXiv:1612.00222",
    ):
        assert text in page.words, text
    assert page.tags.count("svg") >= 7
    assert page.tags.count("b") <= 3


def test_significance_is_that_of_the_whole_sample(tmp_path):
    """Test events are two of ten folds: yields count five times."""
    from diffdet.kernels.significance import asimov_significance

    judged = read_predictions(read_run(a_run(tmp_path)))
    cut, data = judged.best_cut, predictions("classification")
    import torch

    above = data["pred"][:, 0] >= cut.cut
    signal = data["target"][:, 0] > 0.5
    s, b = (5 * data["extra_yields"][above & side].sum() for side in (signal, ~signal))
    assert (cut.signal, cut.background) == (pytest.approx(s), pytest.approx(b))
    wanted = asimov_significance(*(torch.tensor(v, dtype=torch.float64) for v in (s, b, 0.0)))
    assert cut.significance == pytest.approx(wanted.item())
    assert 0 < cut.error < cut.significance
    assert cut.significance == pytest.approx(np.nanmax(cut.curve))


def test_several_models_have_a_table_and_thin_lines(tmp_path):
    told = [
        {
            "model": k,
            "parameters": 10,
            "validation_fold": 7 - k,
            "epochs": 3,
            "best_loss": 0.3,
            "weight": w,
            "reason": "patience",
        }
        for k, w in enumerate((0.75, 0.25))
    ]
    page = Page(write_report(_several(tmp_path, told)).read_text())
    for text in ("0.750", "0.250", "patience", "their mean", "3, 2 models"):
        assert text in page.words


def _several(folder, told):
    a_run(folder, models=2)
    (folder / "result.json").write_text(json.dumps(a_result("classification", models=told)))
    return folder


def test_a_run_that_goes_on_shows_what_there_is(tmp_path):
    page = Page(write_report(a_run(tmp_path, finished_run=False)).read_text())
    check_complete_in_itself(page)
    assert "no result yet" in page.words
    assert "Course of the training" in page.words
    assert "On test events" not in page.words


def test_a_run_that_failed_says_why(tmp_path):
    folder = a_run(tmp_path, finished_run=False)
    (folder / "result.json").write_text(json.dumps({"kind": "train", "status": "failed", "reason": "out of <memory>"}))
    assert "out of <memory>" in Page(write_report(folder).read_text()).words


def test_the_same_run_gives_the_same_page(tmp_path):
    first = write_report(a_run(tmp_path)).read_bytes()
    assert write_report(tmp_path).read_bytes() == first


@pytest.mark.parametrize("content", [b"no archive", b""])
def test_damaged_predictions_are_told(tmp_path, content):
    (a_run(tmp_path) / "predictions.npz").write_bytes(content)
    with pytest.raises(FileDamagedError, match=r"predictions\.npz: expected predictions"):
        write_report(tmp_path)


def test_works_are_those_that_were_used():
    works = importlib.import_module("diffdet.report.train_works").works
    found = [text for _, text, _ in works({"network": {"objective": "regression"}, "optimiser": {"class": "sgd"}})]
    assert len(found) == 1
    assert "Breiman" in found[0]
