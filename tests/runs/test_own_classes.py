"""Classes of the user's own in every part that a class can play."""

from __future__ import annotations

import json

import pytest
import torch

from diffdet.cli.main import run
from diffdet.runs.build import build, build_volume
from diffdet.runs.config import RunConfig, as_mapping, load_config
from diffdet.runs.registry import ROLES, resolve

PARTS = '''
import torch
from torch import nn

from diffdet.inherit import *  # names that the tests supply


class RoundPanel(AbsPanel):
    """A disc: its radius is learnt, and the family has a name that no panel of ours knows."""

    def __init__(self, *, init_xyz, res, eff, radius=0.4, device=None):
        super().__init__()
        self.xy = nn.Parameter(torch.tensor(init_xyz[:2], device=device))
        self.z = nn.Parameter(torch.tensor(init_xyz[2:], device=device))
        self.radius = nn.Parameter(torch.tensor([radius], device=device))
        self.register_buffer("res", torch.tensor([float(res)]))
        self.register_buffer("eff", torch.tensor([float(eff)]))

    def parameter_families(self):
        return {"xy_pos": self.xy, "z_pos": self.z, "radius": self.radius}

    def response_parameters(self):
        span = 2 * self.radius.expand(2)
        return {"centre": self.xy, "span": span, "radius": self.radius, "resolution": self.res, "efficiency": self.eff}

    @staticmethod
    def response(xy, *, centre, span, radius, resolution, efficiency):
        r2 = ((xy - centre) ** 2).sum(-2, keepdim=True) / radius**2
        profile = torch.sigmoid(4 * (1 - r2))
        return (resolution * profile).expand_as(xy) + 1e-6, (efficiency * profile).squeeze(-2)

    def get_cost(self):
        return 3.14159 * self.radius.square().squeeze()


class MyInferrer(PanelX0Inferrer):
    def __init__(self, volume, offset=0.0):
        super().__init__(volume)
        self.offset = offset

    def get_prediction(self):
        pred = super().get_prediction()
        return None if pred is None else pred + self.offset


class MyTracks(ScatterBatch):
    pass


class MyLoss(AbsDetectorLoss):
    def _get_inference_loss(self, pred, volume):
        return (pred.log() - volume.get_rad_cube().log()).square().mean()


class MyGenerator(AbsPassiveGenerator):
    def _generate(self, generator):
        x0 = 0.01 + 0.1 * torch.rand((), generator=generator)
        def layer(*, z, lw, size):
            return torch.full((round(float(lw[0]) / size), round(float(lw[1]) / size)), float(x0))

        return layer, None


class MyMuons(MuonGenerator2016):
    pass


class MyCallback(Callback):
    seen = []

    def on_epoch_end(self):
        self.seen.append(self.state.epoch)


class MyTask(AbsTask):
    def __init__(self, answer):
        self.answer = answer

    def evaluate(self, config, initial, final, progress):
        return Evaluation(initial={"radius": 0.4}, final={"radius": float(next(final.yield_panels()).radius.detach())},
                          details={"answer": self.answer})
'''

NAMES = """
from diffdet.runs.tasks.base import AbsTask, Evaluation
from diffdet.tomography.inference.scattering import ScatterBatch
from diffdet.tomography.inference.volume import PanelX0Inferrer
from diffdet.tomography.muon.generation import MuonGenerator2016
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.data.passives import AbsPassiveGenerator
from diffdet.tomography.optimisation.loss.loss import AbsDetectorLoss
from diffdet.tomography.volume.panel import AbsPanel
"""


@pytest.fixture
def mine(tmp_path):
    """A configuration in which the user's file plays every part."""
    (tmp_path / "my_parts.py").write_text(
        PARTS.replace("from diffdet.inherit import *  # names that the tests supply", NAMES)
    )
    config = as_mapping(load_config("hello_world"))
    for layer in config["volume"]["layers"]:
        for panel in layer.get("panels", ()):
            panel["class"] = "my_parts:RoundPanel"
            panel["args"] = {"radius": 0.5}
    config |= {
        "passives": {"generator": "my_parts:MyGenerator", "train": 2, "valid": 1},
        "muons": {"class": "my_parts:MyMuons", "per_volume": 128},
        "inference": {
            "tracks": "my_parts:MyTracks",
            "volume": {"class": "my_parts:MyInferrer", "args": {"offset": 1e-3}},
        },
        "loss": "my_parts:MyLoss",
        "optimiser": {"radius": {"lr": 0.001}, "z_pos.above": {"class": "Adam", "lr": 0.001}},
        "callbacks": ["MuonResampler", "my_parts:MyCallback"],
        "schedule": {"epochs": 2},
        "task": {"class": "my_parts:MyTask", "args": {"answer": 42}},
    }
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(config))
    return path


def test_a_user_s_classes_can_play_every_part(mine, tmp_path, capsys):
    assert run(["optimise", str(mine), "--out", str(tmp_path / "RUN"), "--json"]) == 0
    result = json.loads(capsys.readouterr().out)
    assert result["evaluation"]["answer"] == 42
    assert result["final"]["radius"] != pytest.approx(0.5, abs=1e-6)
    lines = [json.loads(line) for line in (tmp_path / "RUN" / "detectors.jsonl").read_text().splitlines()]
    panels = [line["panels"] for line in lines]
    assert panels[0][0]["cost"] == pytest.approx(3.14159 / 4)
    moved = [abs(a["xyz_m"][2] - b["xyz_m"][2]) > 1e-5 for a, b in zip(panels[0], panels[-1], strict=True)]
    assert moved == [True] * 4 + [False] * 4, "only the panels above were given an optimiser for z"


def test_a_run_with_own_classes_can_be_repeated_from_its_folder(mine, tmp_path):
    assert run(["optimise", str(mine), "--out", str(tmp_path / "RUN"), "--quiet"]) == 0
    again = tmp_path / "deeper" / "AGAIN"
    assert run(["optimise", str(tmp_path / "RUN" / "config.yaml"), "--out", str(again), "--quiet"]) == 0
    assert (again / "detectors.jsonl").read_text() == (tmp_path / "RUN" / "detectors.jsonl").read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("inference.volume=my_parts:MyCallback", ("inference.volume", "AbsVolumeInferrer")),
        ("loss=my_parts:MyTask", ("loss.class", "AbsDetectorLoss")),
        ("loss=my_parts:NoLoss", ("loss.class", "NoLoss", "cannot be imported")),
        (
            "loss=diffdet.tomography.optimisation.loss.loss:AbsDetectorLoss",
            ("loss.class", "abstract", "_get_inference_loss"),
        ),
        ("task=my_parts:MyTask", ("task.args.answer", "MyTask", "requires")),
        ("optimiser={radios: {lr: 1}}", ("optimiser.radios", "radius")),
    ],
)
def test_classes_that_cannot_play_their_part_are_refused(change, words, mine, tmp_path, capsys):
    assert run(["optimise", str(mine), "--out", str(tmp_path / "RUN"), "--set", change]) == 2
    message = capsys.readouterr().err
    for word in words:
        assert word in message
    assert not (tmp_path / "RUN").exists()


@pytest.mark.parametrize(("role", "name"), [(role, name) for role, names in ROLES.items() for name in names])
def test_every_documented_name_stands_for_a_class(role, name):
    found = resolve(role, name, "here")
    assert isinstance(found, type)
    assert found.__doc__


def test_the_ladle_furnace_starts_from_the_documented_detector():
    from diffdet.tomography.benchmarks.ladle_furnace.volume import get_initial_detector
    from diffdet.tomography.volume.volume import Volume

    ours, theirs = build_volume(load_config("ladle_furnace")), Volume(get_initial_detector(), budget=6.0)
    assert ours.n_zxy == theirs.n_zxy
    for mine, other in zip(ours.passive_box, theirs.passive_box, strict=True):
        assert mine == pytest.approx(other)
    for a, b in zip(ours.yield_panels(), theirs.yield_panels(), strict=True):
        for name in ("xy", "z", "xy_span", "resolution", "efficiency", "m2_cost"):
            torch.testing.assert_close(getattr(a, name), getattr(b, name))
        torch.testing.assert_close(a.get_scaled_xy_span(), b.get_scaled_xy_span())


def test_blocks_fill_the_voxels_whose_centres_they_hold():
    volume = build(load_config("hello_world")).volume
    config = load_config("hello_world")
    from diffdet.runs.build import yield_passives

    function, target = next(iter(yield_passives(config, volume, "valid", 1)))
    volume.load_rad_length(function, target)
    cube = volume.get_rad_cube()
    lead, beryllium = 0.005612, 0.3528
    expected = torch.full((6, 10, 10), beryllium)
    expected[1:3, 5:, 5:] = lead
    torch.testing.assert_close(cube, expected)


def test_volumes_of_different_splits_and_seeds_differ_and_more_of_them_begin_with_the_same():
    sets = ["passives.generator={class: VoxelPassiveGenerator}", "passives.layouts=[]"]

    def cubes(split: str, count: int, seed: int = 0) -> torch.Tensor:
        from diffdet.runs.build import yield_passives

        config: RunConfig = load_config("hello_world", sets=[*sets, "passives.shuffle=false"], seed=seed)
        volume = build_volume(config)
        found = []
        for function, _ in yield_passives(config, volume, split, count):
            volume.load_rad_length(function)
            found.append(volume.get_rad_cube().clone())
        return torch.stack(found)

    train = cubes("train", 3)
    assert torch.equal(train[:2], cubes("train", 2))
    assert not torch.equal(train[:2], cubes("valid", 2))
    assert not torch.equal(train[:2], cubes("train", 2, seed=1))
    assert not torch.equal(train[0], train[1])
