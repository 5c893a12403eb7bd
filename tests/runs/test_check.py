"""The job `check`: what it finds for built-in and for users' designs, what it advises, what it leaves behind."""

from __future__ import annotations

import json
import sys

import pytest
import torch

from diffdet.core.errors import InputError, NoHitsError
from diffdet.runs.check import check
from diffdet.runs.config import as_mapping, load_config

SMALL = ("muons.per_volume=150", "volume.layers.1.voxel=0.2", "volume.layers.1.thickness=0.6")

PANELS = '''
import torch
from torch import nn

from diffdet.core.errors import InputError
from diffdet.tomography.volume.panel import DetectorPanel


class Detached(DetectorPanel):
    """The span enters without gradient, but for its cost."""

    def response_parameters(self):
        given = super().response_parameters()
        return given | {"centre": given["centre"].detach() + 0 * given["centre"].sum()}


class Rooted(DetectorPanel):
    @staticmethod
    def response(xy, **parameters):
        res, eff = DetectorPanel.response(xy, **parameters)
        far = (xy - parameters["centre"]).abs() - 0.3
        return res + torch.where(far > 0, (far * (far > 0)).sqrt(), 0.0), eff


class Odd(DetectorPanel):
    """Learns a number that nothing depends on, too."""

    def __init__(self, **options):
        super().__init__(**options)
        self.colour = nn.Parameter(torch.zeros(1))

    def parameter_families(self):
        return super().parameter_families() | {"colour": self.colour}
'''


@pytest.fixture(scope="module")
def plain():
    """Result of a check of `hello_world` made small."""
    return check(load_config("hello_world", sets=SMALL), updates=4)


def test_a_built_in_design_agrees(plain):
    assert plain["agree"] is True
    assert plain["reason"] == "the gradients of all families that move agree with finite differences"
    assert list(plain["families"]) == ["xy_pos", "z_pos", "xy_span"]
    for family in plain["families"].values():
        assert family["verdict"] == "exact"
        assert family["moves"]
        assert family["worst_relative_error"] < 1e-3
        assert family["cosine"] == pytest.approx(1, abs=1e-6)
        assert family["variance"] > 0
    assert (plain["updates"], plain["volumes_per_update"], plain["muons_per_volume"]) == (4, 1, 150)
    # 4 gradients, two values for each of 40 parameters, two values for half of the updates of each of 3 families
    assert plain["muons_simulated"] >= (4 + 2 * 40 + 4 * 3) * 150
    assert plain["non_finite"] is None
    json.dumps(plain, allow_nan=False)


def test_noise_without_signal_is_advised_about(plain):
    assert any("muons" in line for line in plain["advice"])
    assert all(line.split(":")[0] in plain["families"] for line in plain["advice"])


def test_the_default_precision_is_as_before(plain):
    assert torch.get_default_dtype() is torch.float32


def test_budgets_are_told_under_the_name_of_the_configuration():
    sets = (*SMALL, "volume.budget=6", "optimiser={budget: {lr: 0.1}, z_pos: {lr: 0.1}}", "schedule={epochs: 1}")
    found = check(load_config("hello_world", sets=[*sets, "loss={class: VoxelX0Loss}"]), updates=4)
    assert list(found["families"]) == ["xy_pos", "z_pos", "xy_span", "budget"]
    assert [f["moves"] for f in found["families"].values()] == [False, True, False, True]
    assert found["agree"]


def own(tmp_path, kind, **changes):
    (tmp_path / "own_panels.py").write_text(PANELS)
    sys.modules.pop("own_panels", None)  # of another folder
    config = as_mapping(load_config("hello_world", sets=SMALL)) | changes
    for layer in config["volume"]["layers"]:
        for panel in layer.get("panels", ()):
            panel["class"] = f"own_panels:{kind}"
            del panel["smooth"]
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config))
    return path


def test_a_detached_parameter_of_a_user_s_panel_is_found_and_named(tmp_path):
    found = check(own(tmp_path, "Detached"), updates=4)
    assert found["agree"] is False
    assert found["families"]["z_pos"]["verdict"] == "exact"
    wrong = found["families"]["xy_pos"]
    assert wrong["verdict"] in ("wrong", "undecided")
    assert wrong["cosine"] is None
    assert wrong["worst_relative_error"] == pytest.approx(1)
    assert "xy_pos" in found["reason"]
    assert any(line.startswith("xy_pos: the gradient is not the derivative") for line in found["advice"])


def test_what_stands_still_does_not_decide(tmp_path):
    moving = {"optimiser": {"z_pos": {"lr": 0.1}}, "schedule": {"epochs": 1}}
    found = check(own(tmp_path, "Detached", **moving), updates=4)
    assert found["agree"] is True
    assert found["families"]["xy_pos"]["moves"] is False
    assert not any(line.startswith("xy_pos") for line in found["advice"])


def test_a_family_without_effect_is_advised_against(tmp_path):
    moving = {"optimiser": {"colour": {"lr": 0.1}}, "schedule": {"epochs": 1}}
    found = check(own(tmp_path, "Odd", **moving), updates=4)
    assert found["families"]["colour"]["verdict"] == "no effect"
    assert found["advice"][0].startswith("colour: the loss does not depend on it; leave it out of `optimiser`")
    assert len(found["advice"]) == 1


def test_what_is_not_finite_is_named_with_line_and_muon(tmp_path):
    found = check(own(tmp_path, "Rooted"), updates=4)
    assert found["agree"] is False
    culprit = found["non_finite"]
    assert culprit["file"] == str(tmp_path / "own_panels.py")
    assert "sqrt" in culprit["code"]
    assert isinstance(culprit["muon"], int)
    assert culprit["text"] in found["reason"]
    assert "safe_math" in found["advice"][0]
    json.dumps(found, allow_nan=False)


def test_a_folder_receives_configuration_and_result(tmp_path, plain):
    out = tmp_path / "RUN"
    found = check(load_config("hello_world", sets=SMALL), updates=4, out=out)
    assert {path.name for path in out.iterdir() if not path.name.startswith(".")} == {"config.yaml", "result.json"}
    written = json.loads((out / "result.json").read_text())
    assert written["kind"] == "check"
    assert written == json.loads(json.dumps(found))
    times = ("wall_seconds", "finished", "sha256")
    assert {k: v for k, v in found.items() if k not in times} == {k: v for k, v in plain.items() if k not in times}


def test_another_seed_gives_other_noise(plain):
    found = check(load_config("hello_world", sets=SMALL, seed=1), updates=4)
    assert found["loss"] != plain["loss"]
    assert found["agree"]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"updates": 2}, "--updates"),
        ({"updates": 7}, "even"),
        ({"muons": 0}, "--muons"),
        ({"tolerance": 0.0}, "--tolerance"),
        ({"tolerance": float("nan")}, "--tolerance"),
    ],
)
def test_numbers_out_of_range_are_refused_and_nothing_is_written(options, words, tmp_path):
    with pytest.raises(InputError, match=words):
        check("hello_world", out=tmp_path / "RUN", **options)
    assert not list(tmp_path.iterdir())


def test_a_folder_that_holds_something_is_refused_before_the_work(tmp_path, monkeypatch):
    monkeypatch.setattr("diffdet.runs.check._compare", lambda *_: pytest.fail("worked"))
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match="holds other files"):
        check("hello_world", out=tmp_path)
    (tmp_path / "file").write_text("mine")
    with pytest.raises(InputError, match="is a file"):
        check("hello_world", out=tmp_path / "file")
    with pytest.raises(InputError, match="cannot"):
        check("hello_world", out=tmp_path / "file" / "below")


def test_a_detector_without_hits_is_told_and_nothing_is_written(tmp_path):
    sets = (*SMALL, "muons.x_range=[50, 51]", "muons.y_range=[50, 51]", "callbacks=[NoMoreNaNs]")
    with pytest.raises(NoHitsError, match="no gradient to check"):
        check(load_config("hello_world", sets=sets), updates=4, out=tmp_path / "RUN")
    assert not list(tmp_path.iterdir())
