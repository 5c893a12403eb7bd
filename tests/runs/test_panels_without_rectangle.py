"""A panel that covers no rectangle is recorded, drawn, reported and logged with the extent of its layer."""

from __future__ import annotations

import json
import sys

import pytest

from diffdet.cli.main import run
from diffdet.runs.config import as_mapping, load_config
from jobs import TINY, read_lines

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:plotly")

PANEL = '''
import torch
from torch import nn

from diffdet.tomography.volume.panel import AbsPanel


class Sheet(AbsPanel):
    """Covers all there is; what is learnt is how fine it measures, along each axis, and where it is fixed in height."""

    realistic_validation = False

    def __init__(self, *, init_xyz, device=None):
        super().__init__()
        self.register_buffer("z", torch.tensor(init_xyz[2:], device=device))
        self.pitch = nn.Parameter(torch.full((2,), 0.004, device=device))
        self.gain = nn.Parameter(torch.ones(1, device=device))

    def parameter_families(self):
        return {"pitch": self.pitch, "gain": self.gain}

    def response_parameters(self):
        return {"pitch": self.pitch, "gain": self.gain}

    @staticmethod
    def response(xy, *, pitch, gain):
        res = (gain / pitch.abs()).expand(*xy.shape[:-2], 2, xy.shape[-1])
        return res, torch.full_like(res[..., 0, :], 0.9)

    def get_cost(self):
        return self.gain.squeeze()
'''


@pytest.fixture
def design(tmp_path):
    sys.modules.pop("sheets", None)
    (tmp_path / "sheets.py").write_text(PANEL)
    config = as_mapping(load_config("hello_world", sets=TINY))
    for layer in config["volume"]["layers"]:
        for panel in layer.get("panels", ()):
            panel["class"] = "sheets:Sheet"
    config |= {
        "optimiser": {"pitch": {"lr": 1e-6}, "gain": {"lr": 1e-6}},
        "callbacks": ["MuonResampler", "NoMoreNaNs"],
        "schedule": {"epochs": 2},
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config))
    return path


def test_a_run_tells_what_there_is(design, tmp_path):
    out = tmp_path / "RUN"
    assert run(["optimise", str(design), "--out", str(out), "--quiet"]) == 0
    first = read_lines(out / "detectors.jsonl")[0]["panels"][0]
    assert first == {
        "layer": 0,
        "position": "above",
        "panel": 0,
        "xyz_m": [0.5, 0.5, 1.0],
        "span_m": [1.0, 1.0],
        "cost": 1.0,
        "covers": "layer",
        "parameters": {"pitch": [0.004, 0.004], "gain": [1.0]},
    }
    report = (out / "report.html").read_text()
    assert "gain of each panel" in report
    assert "pitch of each panel" not in report, "two numbers a panel make no curve"
    result = json.loads((out / "result.json").read_text())
    assert result["model_comparison"] is None, "there is no physical model to compare with"
    assert "the physical one" not in report


def test_it_can_be_checked_and_drawn(design, tmp_path):
    from matplotlib.figure import Figure

    from diffdet.runs.build import build_volume
    from diffdet.tomography.optimisation.callbacks.monitors import PanelMetricLogger
    from diffdet.tomography.plotting.panels import draw_layer, draw_response

    assert PanelMetricLogger
    assert run(["check", str(design), "--quiet", "--updates", "4"]) == 0
    volume = build_volume(load_config(design))
    volume.draw(xlim=(0, 1), ylim=(0, 1), zlim=(0, 1.1))
    axes = Figure().subplots(1, 4)
    layer = volume.get_detectors()[0]
    draw_layer(layer, (1.0, 1.0), *axes[:3])
    draw_response(layer, axes[3])
    assert len(axes[0].lines) == 4
    assert axes[0].lines[0].get_xdata().tolist() == [0.0, 1.0]
