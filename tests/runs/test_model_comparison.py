"""The comparison of models in result and report: what is told, by what, and that it never costs the run."""

from __future__ import annotations

import json
import math

import pytest

from diffdet.cli.main import run
from diffdet.report import models
from diffdet.runs import model_comparison
from diffdet.runs.build import build_task, build_volume
from diffdet.runs.config import load_config
from diffdet.runs.tasks.base import AbsTask, Evaluation
from jobs import arguments

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:plotly")

KEYS = ("share_used", "hit_efficiency", "hit_resolution_m", "angle_in_rad", "angle_out_rad")
SIGMOID = [
    "volume.layers.0.panels.*.class=SigmoidDetectorPanel",
    "volume.layers.2.panels.*.class=SigmoidDetectorPanel",
]


def silent(done, total, text):
    pass


def compared(design="hello_world", *, task=None, sets=()):
    config = load_config(design, sets=["muons.per_volume=128", "task.args={volumes: 2, muons_per_volume: 64}", *sets])
    final = build_volume(config)
    return model_comparison.compare_models(config, final, task or build_task(config), silent)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    out = tmp_path_factory.mktemp("models") / "RUN"
    assert run([*arguments(out), "--quiet"]) == 0
    return out


def test_a_run_tells_figures_with_standard_errors(finished):
    found = json.loads((finished / "result.json").read_text())["model_comparison"]
    assert list(found["figures"]) == list(KEYS)
    for row in found["figures"].values():
        assert row["difference"] == pytest.approx(row["smooth"] - row["physical"])
        assert all(row[f"{name}_se"] > 0 for name in ("smooth", "physical", "difference"))
    assert found["muons"] == 16 * 64
    assert list(found["task"]) == ["loss"]
    loss = found["task"]["loss"]
    assert loss["difference_se"] == pytest.approx(math.hypot(loss["smooth_se"], loss["physical_se"]))
    assert found["task_volumes"] == 2


def test_the_physical_side_is_the_detector_that_was_evaluated(finished):
    result = json.loads((finished / "result.json").read_text())
    assert result["model_comparison"]["task"]["loss"]["physical"] == result["final"]["loss"]


def test_the_report_shows_a_table_and_pictures(finished):
    report = (finished / "report.html").read_text()
    for words in (
        "The model that was optimised, and the physical one",
        "share of muons used",
        "angle to the true track, below",
        "Share of hits with an error in x or y below a value",
    ):
        assert words in report


def test_it_is_the_same_every_time():
    first, second = compared(), compared()
    assert first == second


def test_sharper_panels_are_closer_to_the_physical_ones():
    def gap(smooth):
        sets = [*SIGMOID, *(f"volume.layers.{k}.panels.*.smooth={smooth}" for k in (0, 2))]
        return abs(compared(sets=sets)["figures"]["share_used"]["difference"])

    assert gap(1.0) > 3 * gap(0.01)


def test_the_furnace_compares_its_own_figures():
    sets = ["task={class: ladle_furnace, args: {n_repeats: 1, n_calibration_repeats: 2, n_muons: 100}}"]
    config = load_config("ladle_furnace", sets=[*sets, "muons.per_volume=100"])
    found = model_comparison.compare_models(config, build_volume(config), build_task(config), silent)
    assert found["layouts"] == 4
    assert list(found["task"]) == ["mse_m2", "abs_bias_m"]


class Failing(AbsTask):
    def __init__(self, error):
        self.error = error

    def evaluate(self, config, initial, final, progress):
        raise self.error


class Plain(AbsTask):
    def evaluate(self, config, initial, final, progress):
        smooth = {panel.realistic_validation for panel in initial.yield_panels()}
        physical = {panel.realistic_validation for panel in final.yield_panels()}
        assert (smooth, physical) == ({False}, {True})
        return Evaluation({"a": 1.0, "b": 2.0, "b_se": 0.3}, {"a": 1.0, "b": 1.0, "b_se": 0.4})


def test_figures_of_the_task_that_have_an_error_are_compared():
    found = compared(task=Plain())
    row = {"smooth": 2.0, "smooth_se": 0.3, "physical": 1.0, "physical_se": 0.4, "difference": 1.0}
    assert found["task"] == {"b": row | {"difference_se": pytest.approx(0.5)}}


def test_a_task_without_figures_leaves_the_others():
    from diffdet.core.errors import NoHitsError

    found = compared(task=Failing(NoHitsError("nothing was hit")))
    assert found["task"] == {}
    assert found["notes"] == ["No figures of the task: nothing was hit."]
    assert list(found["figures"]) == list(KEYS)


def test_whatever_goes_wrong_with_it_the_run_is_complete(tmp_path, monkeypatch):
    def fail(*_):
        raise ZeroDivisionError("by nothing")

    monkeypatch.setattr(model_comparison, "compare_models", fail)
    out = tmp_path / "RUN"
    assert run([*arguments(out), "--quiet"]) == 0
    result = json.loads((out / "result.json").read_text())
    assert result["status"] == "complete"
    assert result["final"]["loss"] is not None
    assert result["model_comparison"] is None
    assert result["warnings"] == ["no comparison of the detector's models: ZeroDivisionError: by nothing"]


def test_without_physical_panels_there_is_nothing_to_compare():
    sets = [f"volume.layers.{k}.panels.*.realistic_validation=false" for k in (0, 2)]
    assert compared(sets=sets) is None


def test_panels_without_physical_model_among_others_are_mentioned():
    found = compared(sets=["volume.layers.0.panels.0.realistic_validation=false"])
    assert found["notes"] == ["Panels without a physical model are smooth on both sides."]


def test_the_table_copes_with_what_is_unknown():
    empty = dict.fromkeys(("smooth", "smooth_se", "physical", "physical_se", "difference", "difference_se"))
    result = {"model_comparison": {"figures": {"angle_in_rad": empty}, "task": {}, "curves": {}, "muons": 5}}
    shown = models.section(result, lambda key: (key, ""))
    assert shown is not None
    assert [cell["value"] for cell in shown["rows"][0]["cells"]] == ["–", "–", "–"]
    assert not shown["rows"][0]["apart"]
    assert shown["plots"] == []
    assert models.section({}, lambda key: (key, "")) is None
