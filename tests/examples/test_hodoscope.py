"""The example of a detector of the user's own: small, right, optimised from its configuration, unknown to us."""

from __future__ import annotations

import ast
import json
import shutil
import sys
from pathlib import Path

import pytest
import torch

from diffdet.cli.main import run
from diffdet.core.random import Stream
from diffdet.runs.build import build_volume
from diffdet.runs.config import load_config
from diffdet.tomography.muon.muon_batch import MuonBatch
from diffdet.tomography.volume.panel import AbsPanel
from jobs import arguments, read_lines

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:plotly")

LITTLE = ["muons.per_volume=128", "passives.train=1", "task.args={volumes: 3, muons_per_volume: 256}"]


@pytest.fixture(scope="module")
def folder(repository):
    return repository / "examples" / "hodoscope"


@pytest.fixture(scope="module")
def repository():
    return Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _fresh():
    """The module of the example is imported anew by every test."""
    sys.modules.pop("hodoscope", None)
    yield
    sys.modules.pop("hodoscope", None)


@pytest.fixture
def panel(folder) -> AbsPanel:
    """The first hodoscope of the example."""
    return next(build_volume(load_config(folder / "hodoscope.yaml")).yield_panels())


def test_it_is_one_class_of_less_than_sixty_lines_and_names_no_private_part_of_ours(folder):
    text = (folder / "hodoscope.py").read_text()
    tree = ast.parse(text)
    (klass,) = (node for node in tree.body if isinstance(node, ast.ClassDef))
    assert klass.end_lineno is not None
    assert klass.end_lineno - klass.lineno + 1 < 60
    assert len(text.splitlines()) < 70
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("diffdet"):
            names = [*(node.module or "").split("."), *(alias.name for alias in node.names)]
            assert not any(name.startswith("_") for name in names)


def hits(panel: AbsPanel, xy: torch.Tensor) -> dict[str, torch.Tensor]:
    """Hits of vertical muons."""
    n = len(xy)
    columns = torch.cat([xy, torch.tensor([5.0, 0.0, 0.0]).expand(n, 3)], 1)
    return panel.get_hits(MuonBatch(columns, init_z=2.0, stream=Stream("example").muons()))


def test_in_evaluation_a_muon_is_seen_in_the_middle_of_its_bars(panel):
    panel.eval()
    bar, edge = 0.02, 0.5 - 0.7
    xy = edge + bar * torch.tensor([[0.1, 0.9], [1.01, 1.99], [34.5, 69.9], [0.5, 3.5]])
    middle = edge + bar * torch.tensor([[0.5, 0.5], [1.5, 1.5], [34.5, 69.5], [0.5, 3.5]])
    found = hits(panel, xy)
    torch.testing.assert_close(found["reco_xyz"][:, :2], middle, atol=1e-6, rtol=0)
    torch.testing.assert_close(found["unc_xyz"][:, :2], torch.full_like(xy, bar / 12**0.5))
    torch.testing.assert_close(found["eff"], torch.full((4, 1), 0.98**2))


def test_in_evaluation_a_muon_beside_the_bars_has_no_hit(panel):
    panel.eval()
    found = hits(panel, torch.tensor([[-0.21, 0.5], [0.5, 1.21]]))
    assert found["reco_xyz"][:, :2].isnan().all()
    assert (found["eff"] == 0).all()


def test_the_error_of_a_bar_is_uniform_with_the_stated_deviation(panel):
    """4,000 muons: the standard deviation of a uniform error is known to 0.7 %; four of them."""
    panel.eval()
    xy = torch.rand(4000, 2, generator=torch.Generator().manual_seed(1))
    found = hits(panel, xy)
    error = found["reco_xyz"][:, :2] - xy
    assert error.abs().max() <= 0.01 + 1e-6
    assert error.std().item() == pytest.approx(0.02 / 12**0.5, rel=0.028)


def test_in_training_hits_are_smooth_in_everything_that_is_learnt(panel):
    panel.train()
    found = hits(panel, torch.tensor([[0.31, 0.72], [1.19, 0.5]]))
    assert found["reco_xyz"].isfinite().all()
    for name, parameter in panel.parameter_families().items():
        (gradient,) = torch.autograd.grad(
            found["unc_xyz"].sum() + found["reco_xyz"].sum(), parameter, retain_graph=True
        )
        assert (gradient != 0).any(), name


def test_bars_cost_channels(panel):
    assert panel.get_cost().item() == pytest.approx(1.4**2 + 0.01 * 2 * 1.4 / 0.02)


def test_it_is_optimised_from_its_configuration(folder, tmp_path, capsys):
    out = tmp_path / "RUN"
    sets = [*LITTLE, "schedule={epochs: 25, cost_warmup_epochs: 1}", "muons.per_volume=500"]
    design = str(folder / "hodoscope.yaml")
    changes = [f"--set={change}" for change in sets]
    assert run(["optimise", design, "--out", str(out), "--json", *changes]) == 0
    result = json.loads(capsys.readouterr().out)
    better = result["initial"]["loss"] - result["final"]["loss"]
    assert better > 3 * (result["initial"]["loss_se"] ** 2 + result["final"]["loss_se"] ** 2) ** 0.5
    first, last = (read_lines(out / "detectors.jsonl")[k]["panels"] for k in (0, -1))
    assert first[0]["parameters"] == {"bar": [0.02]}
    assert first[0]["xyz_m"] == [0.5, 0.5, 1.35]
    assert first[0]["span_m"] == [1.4, 1.4]
    assert all(panel["parameters"]["bar"][0] < 0.015 for panel in last), "bars became narrower"
    assert last[0]["xyz_m"][2] - last[1]["xyz_m"][2] > 0.2, "planes went apart"
    assert "bar of each panel" in (out / "report.html").read_text()
    models = result["model_comparison"]
    # uniform in a bar: 68.27 % of errors lie below that fraction of half a bar
    bars = sum(panel["parameters"]["bar"][0] for panel in last) / 4
    assert models["figures"]["hit_resolution_m"]["physical"] == pytest.approx(0.6827 * bars / 2, rel=0.05)


def test_its_gradients_agree_with_finite_differences(folder):
    sets = [f"--set={change}" for change in LITTLE]
    assert run(["check", str(folder / "hodoscope.yaml"), "--updates", "4", "--quiet", *sets]) == 0


def test_its_hits_are_simulated_and_read_back(folder, tmp_path, capsys):
    table = tmp_path / "hits.csv"
    design = str(folder / "hodoscope.yaml")
    assert run(["simulate", design, "--muons", "300", "--out", str(table), "--quiet"]) == 0
    image = ["image", str(table), "--config", design, "--method", "poca", "--out", str(tmp_path / "RUN"), "--quiet"]
    assert run(image) == 0


def test_without_its_class_the_configuration_is_refused_and_all_else_works(folder, tmp_path, capsys):
    shutil.copy(folder / "hodoscope.yaml", tmp_path)
    imports = [line for line in (folder / "hodoscope.py").read_text().splitlines() if line.startswith("from")]
    (tmp_path / "hodoscope.py").write_text("\n".join(imports))
    out = tmp_path / "RUN"
    assert run(["optimise", str(tmp_path / "hodoscope.yaml"), "--out", str(out)]) == 2
    message = capsys.readouterr().err
    assert "volume.layers[0].panels[0].class" in message
    assert "'hodoscope:Hodoscope'" in message
    assert not out.exists()
    assert run([*arguments(out), "--quiet"]) == 0


def test_nothing_of_ours_knows_it(repository):
    sources = [path for path in (repository / "src").rglob("*") if path.suffix in (".py", ".yaml", ".j2")]
    assert sources
    named = [path for path in sources if "Hodoscope" in path.read_text() or "hodoscope:" in path.read_text()]
    assert named == []
