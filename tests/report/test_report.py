"""Reports: complete in themselves, the right figures, and something to see in every state of a run."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser
from itertools import pairwise

import pytest
import torch

from diffdet.core.errors import FileDamagedError, InputError
from diffdet.report import detector, write_report
from diffdet.report.svg import VARIABLES
from diffdet.runs.config import as_mapping, load_config, to_yaml

LOADING = {
    "src",
    "srcset",
    "data",
    "poster",
    "background",
    "action",
    "formaction",
    "manifest",
    "ping",
    "cite",
    "xlink:href",
}


class Page(HTMLParser):
    """What a page refers to, and its text."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.loads: list[str] = []
        self.links: list[str] = []
        self.tags: list[str] = []
        self.text: list[str] = []
        self.styles: list[str] = []
        self._inside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self._inside.append(tag)
        for name, value in attrs:
            if name in LOADING or (name == "href" and tag != "a"):
                self.loads.append(value or "")
            elif name == "href":
                self.links.append(value or "")
            elif name == "style":
                self.styles.append(value or "")

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" in self._inside:
            self.styles.append(data)
        elif "script" not in self._inside:
            self.text.append(data)

    @property
    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def a_result() -> dict:
    """A finished run with figures whose place in the report is easy to recognise."""
    heights = [0.6, 0.9, 1.3]
    detectors = {
        key: {"target": heights * 4, "prediction": [h + error * (k % 3 - 1) for k, h in enumerate(heights * 4)]}
        for key, error in (("initial", 0.2), ("final", 0.02), ("baseline_1", 0.03), ("baseline_2", 0.025))
    }

    def figures(mse: float) -> dict[str, float]:
        return {"mse_m2": mse, "mse_m2_se": mse / 10, "abs_bias_m": mse**0.5, "abs_bias_m_se": mse**0.5 / 20}

    return {
        "kind": "optimise",
        "status": "complete",
        "reason": "all 3 epochs are done",
        "seed": 3,
        "device": "cpu",
        "command": "diffdet optimise --out 'my run' --seed 3",
        "initial": figures(0.0448),
        "final": figures(0.000691),
        "baselines": {"baseline_1": figures(0.00104), "baseline_2": figures(0.000856)},
        "evaluation": {"text": "Fill levels of 12 held-out volumes.", "notes": ["All detectors see the same muons."]},
        "predictions": {"kind": "scalar", "quantity": "fill level", "unit": "m", "detectors": detectors},
        "wall_seconds": 83.2,
        "muons_simulated": 4736000,
        "muons_per_second": 56923.0,
        "finished": "2025-03-01T12:30:11+01:00",
        "versions": {"diffdet": "0.1.0", "torch": "2.13.0"},
    }


def a_run(folder, result=None, n_epochs=3):
    """A run folder with made-up content."""
    folder.mkdir(parents=True, exist_ok=True)
    config = as_mapping(load_config("ladle_furnace", sets=["description=<b>bold</b> & brave"]))
    (folder / "config.yaml").write_text(to_yaml(config))
    if result is not None:
        (folder / "result.json").write_text(json.dumps(result))
    detectors, metrics = [], []
    for epoch in range(n_epochs + 1):
        panels = [
            {
                "layer": k // 4,
                "position": ("above", "below")[k // 4],
                "panel": k % 4,
                "xyz_m": [0.1 * epoch, 0.1 * epoch, (1.45 if k < 4 else 0.35) - 0.01 * (k % 4)],
                "span_m": [0.8 + 0.01 * epoch, 0.8],
                "cost": 0.75,
            }
            for k in range(8)
        ]
        detectors.append({"epoch": epoch, "panels": panels, "cost": 6.0})
        if epoch:
            for phase in ("warmup" if epoch == 1 else "train", "valid"):
                metrics.append({"epoch": epoch, "phase": phase, "loss": 1.0 / epoch, "error": 1.0 / epoch, "cost": 0.0})
    if n_epochs:
        (folder / "detectors.jsonl").write_text("".join(json.dumps(line) + "\n" for line in detectors))
        (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    return folder


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The report of a finished run."""
    return Page(write_report(a_run(tmp_path_factory.mktemp("run"), a_result())).read_text(encoding="utf-8"))


def check_complete_in_itself(page: Page) -> None:
    """Opening the page asks no other computer for anything."""
    for reference in page.loads:
        assert reference.startswith(("data:", "#")), f"the page would load {reference[:80]}"
    assert not set(page.tags) & {"link", "iframe", "object", "embed", "base", "form", "video", "audio"}
    for style in page.styles:
        assert "@import" not in style
        for target in re.findall(r"url\(\s*['\"]?([^'\")]*)", style):
            assert target.startswith(("data:", "#"))
    assert all(link.startswith(("https://", "#")) for link in page.links)


def test_the_report_is_complete_in_itself(page):
    check_complete_in_itself(page)
    assert "script" in page.tags
    assert page.tags.count("svg") >= 8


def test_the_report_has_the_key_figures(page):
    words = page.words
    assert "0.69 ± 0.07 × 10⁻³ m²" in words
    assert "65 times smaller than before the optimisation" in words
    assert "0.81 times that of baseline 2, the better of the human designs" in words
    assert "initial 44.800 ± 4.480 211.7 ± 10.6" in words
    assert "optimised 0.691 ± 0.069 26.3 ± 1.3" in words
    assert "baseline 1 1.040 ± 0.104" in words
    assert "4 736 000" in words
    assert "83 s" in words
    assert "Fill levels of 12 held-out volumes." in words


def test_the_report_has_configuration_versions_seed_commands_and_citations(page):
    words = page.words
    for part in (
        "SigmoidDetectorPanel",
        "2.13.0",
        "diffdet optimise --out 'my run' --seed 3",
        "config.yaml --out AGAIN",
    ):
        assert part in words
    assert {"https://arxiv.org/abs/2309.14027", "https://arxiv.org/abs/1606.06907"} <= set(page.links)


def test_text_from_files_is_text(page):
    assert "<b>bold</b> & brave" in page.words
    assert "b" not in page.tags or page.words.count("bold") >= 1
    raw = "<b>bold</b>"
    assert raw in page.words, "the tag is shown, not obeyed"


def test_pictures_take_their_colours_from_the_page(page):
    for style in page.styles:
        for marker in VARIABLES:
            assert marker not in style
    assert any("prefers-color-scheme: dark" in style for style in page.styles)
    assert any("@media print" in style for style in page.styles)


def test_the_interactive_view_holds_every_epoch_and_ends_no_script_early(tmp_path):
    text = write_report(a_run(tmp_path / "RUN", a_result())).read_text(encoding="utf-8")
    data = re.search(r'<script type="application/json" id="view-data">(.*?)</script>', text, re.DOTALL)
    assert data is not None
    view = json.loads(data.group(1))
    assert [frame["epoch"] for frame in view["frames"]] == [0, 1, 2, 3]
    assert view["frames"][0]["traces"][0]["x"][:4] == [-0.4, 0.4, 0.4, -0.4]
    assert text.count("<script") == text.count("</script>")


def test_without_plotly_the_still_pictures_stay_and_the_extra_is_named(tmp_path, monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    text = write_report(a_run(tmp_path / "RUN", a_result())).read_text(encoding="utf-8")
    assert 'pip install "diffdet[view]"' in Page(text).text[-1] or "diffdet[view]" in Page(text).words
    assert len(text) < 600_000
    assert Page(text).tags.count("svg") >= 8


@pytest.mark.parametrize("status", ["interrupted", "failed"])
def test_runs_that_ended_early_say_why(status, tmp_path):
    result = a_result() | {"status": status, "reason": "the roof fell in at epoch 2"}
    for key in ("initial", "final", "predictions", "evaluation"):
        result.pop(key)
    result["baselines"] = {}
    page = Page(write_report(a_run(tmp_path / "RUN", result, n_epochs=2)).read_text(encoding="utf-8"))
    check_complete_in_itself(page)
    assert status in page.words
    assert "the roof fell in at epoch 2" in page.words


@pytest.mark.parametrize("n_epochs", [0, 1])
def test_runs_that_have_hardly_begun_have_a_report(n_epochs, tmp_path):
    page = Page(write_report(a_run(tmp_path / "RUN", None, n_epochs)).read_text(encoding="utf-8"))
    check_complete_in_itself(page)
    assert "no result yet" in page.words


def test_figures_that_are_missing_are_dashes(tmp_path):
    result = a_result()
    result["initial"] = dict.fromkeys(result["initial"])
    page = Page(write_report(a_run(tmp_path / "RUN", result)).read_text(encoding="utf-8"))
    assert "initial – –" in page.words


def test_damaged_files_are_named(tmp_path):
    folder = a_run(tmp_path / "RUN", a_result())
    (folder / "metrics.jsonl").write_text('{"epoch": 1}\n{"epo')
    with pytest.raises(FileDamagedError, match=r"metrics.jsonl, line 2: expected a JSON object"):
        write_report(folder)
    (folder / "metrics.jsonl").write_text("")
    (folder / "result.json").write_text("{")
    with pytest.raises(FileDamagedError, match=r"result.json: expected JSON"):
        write_report(folder)
    with pytest.raises(InputError, match="holds neither"):
        write_report(tmp_path)


def test_the_report_command_rebuilds_the_same_file(tmp_path, capsys):
    from diffdet.cli.main import run

    folder = a_run(tmp_path / "RUN", a_result())
    first = write_report(folder).read_bytes()
    (folder / "report.html").unlink()
    assert run(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"{folder / 'report.html'}\n"
    assert (folder / "report.html").read_bytes() == first


def test_stills_share_their_scale_and_draw_from_the_lowest_up():
    space = {"lw": (1.0, 1.0), "passive": (0.4, 1.4), "height": 1.8}
    low = {"position": "below", "xyz_m": [0.5, 0.5, 0.1], "span_m": [1.0, 1.0]}
    high = {"position": "above", "xyz_m": [0.5, 0.5, 1.7], "span_m": [1.0, 1.0]}
    reach = detector.reach_of([[low, high]], space)
    one, two = (detector.still(panels, space, reach, "d") for panels in ([high, low], [low]))
    box = re.compile(r'viewBox="([^"]*)"')
    assert box.search(one).group(1) == box.search(two).group(1)  # type: ignore[union-attr]
    assert one.index('class="panel below"') < one.index('class="block') < one.index('class="panel above"')


def test_a_higher_point_is_further_up_and_a_farther_one_too():
    x, y = detector.project((0, 0, 0))
    assert detector.project((0, 0, 1))[1] < y
    assert detector.project((0, 1, 0))[1] < y
    assert detector.project((1, 0, 0))[0] > x


def test_many_epochs_are_thinned_out_evenly():
    entries = [{"epoch": k} for k in range(1000)]
    kept = [entry["epoch"] for entry in detector.thin(entries)]
    assert (kept[0], kept[-1]) == (0, 999)
    assert len(kept) == detector.MAX_FRAMES
    gaps = [b - a for a, b in pairwise(kept)]
    assert max(gaps) - min(gaps) <= 1
    assert detector.thin(entries[:5]) == entries[:5]


@pytest.mark.parametrize("empty", [False, True])
def test_the_report_of_an_image(empty, tmp_path):
    import h5py
    import numpy as np

    folder = tmp_path / "IMG"
    folder.mkdir()
    (folder / "config.yaml").write_text(to_yaml(as_mapping(load_config("hello_world"))))
    density = torch.full((6, 10, 10), 3.0, dtype=torch.float64).numpy()
    density[1:3, 5:, 5:] = 178.0
    counts = np.zeros((6, 10, 10)) if empty else np.full((6, 10, 10), 50.0)
    with h5py.File(folder / "image.h5", "w") as file:
        file["inverse_x0"], file["inverse_x0_unc"], file["counts"] = density, density / 5, counts
        file["edges_x"] = file["edges_y"] = np.linspace(0, 1, 11)
        file["edges_z"] = np.linspace(0.2, 0.8, 7)
    densest = {} if empty else {"densest": {"position_m": [0.75, 0.75, 0.45], "x0_m": 0.00562, "x0_unc_m": 0.0011}}
    result = {
        "kind": "image",
        "status": "complete",
        "reason": "",
        "name": "hello_world",
        "method": "poca",
        "settings": {"voxel_m": 0.1, "momentum_gev": 5.0},
        "hits_file": "/data/hits.root",
        "command": "diffdet image /data/hits.root --config hello_world --method poca --out AGAIN",
        "counts": {"events": 28469, "used": 0 if empty else 11118, "dropped": {"track misses the volume": 7}},
        "muons": 0 if empty else 11118,
        "image": {"voxels": 600, "voxels_crossed": 0 if empty else 600, "exposure_per_m2": 11118.0, **densest},
        "warnings": ["none could be used"] if empty else [],
        "wall_seconds": 1.0,
        "versions": {"diffdet": "0.1.0"},
    }
    (folder / "result.json").write_text(json.dumps(result))
    page = Page(write_report(folder).read_text(encoding="utf-8"))
    check_complete_in_itself(page)
    words = page.words
    assert "28 469 events were used" in words
    assert "track misses the volume 7" in words
    if empty:
        assert "The image is empty" in words
        assert "none could be used" in words
        assert "svg" not in page.tags
    else:
        assert "5.6 ± 1.1 mm" in words
        assert page.tags.count("svg") == 3
