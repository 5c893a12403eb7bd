"""The jobs `simulate` and `image`: what they write, that it is right, and how they refuse."""

from __future__ import annotations

import json
import signal
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from diffdet.core.errors import FileDamagedError, InputError, NoMuonsWarning, PhysicsWarning, StorageError
from diffdet.core.materials import X0
from diffdet.runs.config import RunConfig, as_mapping, load_config
from diffdet.runs.image import image
from diffdet.runs.simulate import simulate
from diffdet.tomography.imaging import read_image
from diffdet.tomography.io import HitsReader
from hits_tables import SUFFIXES, assert_same_rows, is_missing, read_rows, write_foreign, write_hits

BLOCK = (slice(1, 3), slice(5, 10), slice(5, 10))
"""Voxels (z, x, y) of the lead block of the design `hello_world`."""


@cache
def design(
    span: float = 3.0, efficiency: float = 1.0, momentum: float | None = 5.0, resample: bool = True
) -> RunConfig:
    """The design `hello_world` with panels that are centred and wide, so that nearly all muons are seen."""
    content = as_mapping(load_config("hello_world"))
    for layer in content["volume"]["layers"]:
        for panel in layer.get("panels", []):
            panel |= {"xyz": [0.5, 0.5, panel["xyz"][2]], "span": [span, span], "efficiency": efficiency}
    content["muons"]["momentum"] = momentum
    if not resample:
        content["callbacks"] = []
    content["versions"] = {}
    return RunConfig.model_validate(content)


@pytest.fixture(scope="module")
def hits(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Hits of 30,000 muons in the wide design."""
    path = tmp_path_factory.mktemp("hits") / "hits.npz"
    simulate(design(), 30_000, path)
    return path


# ------------------------------------------------------------------------------------------------------------- simulate


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_every_format_holds_the_same_rows(suffix: str, tmp_path: Path) -> None:
    if is_missing(suffix):
        pytest.skip(f"the library that writes {suffix} files is not installed")
    simulate(design(), 300, tmp_path / "hits.npz", truth=True)
    result = simulate(design(), 300, tmp_path / f"other{suffix}", truth=True)
    rows = read_rows(tmp_path / f"other{suffix}")
    assert_same_rows(rows, read_rows(tmp_path / "hits.npz"))
    assert result["hits"] == len(rows["event"]) == result["hits_above"] + result["hits_below"]
    assert result["events"] == len(np.unique(rows["event"])) <= result["muons"] == 300


@pytest.mark.parametrize("chunk", [1000, 1024, 2500, 100_000])
def test_chunks_do_not_change_a_bit(chunk: int, tmp_path: Path) -> None:
    config = design(efficiency=0.7, momentum=None)
    simulate(config, 5000, tmp_path / "one.npz", truth=True, chunk=2048)
    simulate(config, 5000, tmp_path / "other.npz", truth=True, chunk=chunk)
    assert (tmp_path / "one.npz").read_bytes() == (tmp_path / "other.npz").read_bytes()


def test_fewer_muons_are_the_first_ones(tmp_path: Path) -> None:
    simulate(design(), 700, tmp_path / "few.npz")
    simulate(design(), 1500, tmp_path / "many.npz")
    few, many = read_rows(tmp_path / "few.npz"), read_rows(tmp_path / "many.npz")
    assert_same_rows(few, {name: values[many["event"] < 700] for name, values in many.items()})


def test_seed_decides(tmp_path: Path) -> None:
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert simulate(design(), 200, tmp_path / f"{name}.npz", seed=seed)["seed"] == seed
    a, b, c = ((tmp_path / f"{name}.npz").read_bytes() for name in "abc")
    assert a == b != c


def test_rows_are_what_the_panels_saw(tmp_path: Path) -> None:
    """Errors are as large as they say: pulls of 70,000 hits have width 1 within 1 %, mean 0 within 4 standard
    errors."""
    simulate(design(), 10_000, tmp_path / "hits.npz", truth=True)
    rows = read_rows(tmp_path / "hits.npz")
    for axis in "xy":
        pull = (rows[axis] - rows[f"true_{axis}"]) / rows[f"{axis}_unc"]
        assert pull.std() == pytest.approx(1, abs=0.01)
        assert abs(pull.mean()) < 4 / np.sqrt(len(pull))
        assert rows[f"{axis}_unc"] == pytest.approx(1e-4)
    heights = [1.0, 0.95, 0.9, 0.85, 0.2, 0.15, 0.1, 0.05]
    np.testing.assert_allclose(rows["z"], np.array(heights)[rows["plane"]], rtol=1e-6)
    np.testing.assert_array_equal(rows["position"], rows["plane"] >= 4)
    assert (np.diff(rows["event"]) >= 0).all()
    assert set(rows["momentum"]) == {5.0}


def test_efficiency_drops_hits(tmp_path: Path) -> None:
    """70 % of the hits of panels that everybody crosses, 80,000 of them: within 4 standard errors; independent of
    others."""
    config = design(span=8.0, efficiency=0.7)
    simulate(config, 10_000, tmp_path / "hits.npz")
    rows = read_rows(tmp_path / "hits.npz")
    seen = np.zeros((10_000, 8), dtype=bool)
    seen[rows["event"], rows["plane"]] = True
    assert seen.mean() == pytest.approx(0.7, abs=4 * np.sqrt(0.21 / seen.size))
    correlation = np.corrcoef(seen.T) - np.eye(8)
    assert np.abs(correlation).max() < 4.5 / np.sqrt(10_000)


def test_muons_are_resampled_where_the_design_says_so(tmp_path: Path) -> None:
    """Resampled muons all cross the block; of the others a part misses it."""
    counts = {}
    for resample in (True, False):
        simulate(design(resample=resample), 2000, tmp_path / f"{resample}.npz", truth=True)
        rows = read_rows(tmp_path / f"{resample}.npz")
        low = rows["plane"] == 4
        inside = (np.abs(rows["true_x"][low] - 0.5) < 0.7) & (np.abs(rows["true_y"][low] - 0.5) < 0.7)
        counts[resample] = inside.sum()
    assert counts[True] > 1.15 * counts[False]


def test_spectrum_of_momenta_is_written(tmp_path: Path) -> None:
    simulate(design(momentum=None), 1000, tmp_path / "hits.npz")
    momentum = read_rows(tmp_path / "hits.npz")["momentum"]
    assert len(np.unique(momentum)) > 900
    assert momentum.min() > 0.4


def test_nobody_seen_is_a_warning(tmp_path: Path) -> None:
    with pytest.warns(NoMuonsWarning, match=r"saw any of the 5 muons: .* has no rows"):
        result = simulate(design(span=1e-4), 5, tmp_path / "hits.npz")
    assert result["hits"] == result["events"] == 0
    assert result["warnings"]
    with HitsReader(tmp_path / "hits.npz") as reader:
        assert reader.n_rows == 0


def test_progress_is_told(tmp_path: Path) -> None:
    told: list[tuple[int, int | None]] = []
    simulate(
        design(), 2500, tmp_path / "hits.npz", chunk=1000, progress=lambda done, total, _: told.append((done, total))
    )
    assert told == [(0, 2500), (1000, 2500), (2000, 2500), (2500, 2500)]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"n_muons": 0}, "`n_muons` must be a whole number of at least 1; got 0"),
        ({"n_muons": 2.5}, "`n_muons` must be a whole number of at least 1; got 2.5"),
        ({"out": "hits.txt"}, r"must end in .parquet.*; got '.*hits.txt'"),
        ({"out": "none/hits.csv"}, r"--out: expected a file in a folder that exists .*given '.*none/hits.csv'"),
        ({"out": "old.csv"}, r"--out: expected a new file, given '.*old.csv', which exists; --overwrite replaces it"),
        ({"config": "ladle"}, r"ladle.*which does not exist"),
    ],
)
def test_bad_requests_write_nothing(change: dict[str, Any], message: str, tmp_path: Path) -> None:
    (tmp_path / "old.csv").write_text("precious")
    request: dict[str, Any] = {"config": design(), "n_muons": 10, "out": "hits.csv"} | change
    request["out"] = tmp_path / request["out"]
    with pytest.raises(InputError, match=message):
        simulate(**request)
    assert [entry.name for entry in tmp_path.iterdir()] == ["old.csv"]
    assert (tmp_path / "old.csv").read_text() == "precious"


def test_overwriting_is_possible(tmp_path: Path) -> None:
    (tmp_path / "hits.csv").write_text("old")
    simulate(design(), 10, tmp_path / "hits.csv", overwrite=True)
    assert len(read_rows(tmp_path / "hits.csv")["event"]) > 0


# ---------------------------------------------------------------------------------------------------------------- image


@pytest.fixture
def plain(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blank pictures, for tests that are about something else: drawing takes longer than imaging."""
    from matplotlib.figure import Figure

    for name in ("slices_figure", "layers_figure"):
        monkeypatch.setattr(f"diffdet.tomography.plotting.voxel_image.{name}", lambda *_, **__: Figure((1, 1)))


@pytest.mark.usefixtures("plain")
@pytest.mark.parametrize("method", ["poca", "mlem"])
def test_block_comes_back_through_the_file(method: str, hits: Path, tmp_path: Path) -> None:
    options = {"iterations": 20} if method == "mlem" else None
    result = image(hits, design(), method, tmp_path / "run", options=options)
    picture = read_image(tmp_path / "run" / "image.h5")
    block = torch.zeros(6, 10, 10, dtype=torch.bool)
    block[BLOCK] = True
    assert 1 / 1.35 < float(picture.inverse_x0[block].mean()) * X0["lead"] < 1.35
    assert float(picture.inverse_x0[~block].median()) < 0.1 / X0["lead"]
    position = result["image"]["densest"]["position_m"]
    assert 0.5 < position[0] < 1
    assert 0.5 < position[1] < 1
    assert 0.3 < position[2] < 0.5


def test_run_folder_is_complete(hits: Path, tmp_path: Path) -> None:
    run = tmp_path / "new" / "run"
    result = image(hits, design(), "poca", run, save=["vtk"])
    names = {entry.name for entry in run.iterdir() if not entry.name.startswith(".")}
    assert names == {
        "image.h5", "image.vtk", "slices.png", "layers.png", "result.json", "config.yaml", "report.html",
    }  # fmt: skip
    assert json.loads((run / "result.json").read_text()) == result
    assert load_config(run / "config.yaml").volume == design().volume
    assert result["status"] == "complete"
    assert result["kind"] == "image"
    assert result["counts"]["events"] == result["counts"]["used"] + sum(result["counts"]["dropped"].values())
    assert result["counts"]["rows"] == len(read_rows(hits)["event"])
    assert result["muons"] == read_image(run / "image.h5").n_muons
    assert result["wall_seconds"] > 0
    assert result["muons_per_second"] > 0
    assert result["warnings"] == []


@pytest.mark.usefixtures("plain")
def test_command_makes_the_image_again(hits: Path, tmp_path: Path) -> None:
    result = image(hits, design(), "poca", tmp_path / "run", voxel=0.2)
    words = result["command"].split()
    assert words[:2] == ["diffdet", "image"]
    arguments = dict(zip(words[3::2], words[4::2], strict=True))
    image(words[2], arguments["--config"], arguments["--method"], tmp_path / "again", voxel=float(arguments["--voxel"]))
    one, other = (read_image(tmp_path / name / "image.h5") for name in ("run", "again"))
    torch.testing.assert_close(one.inverse_x0, other.inverse_x0, rtol=0, atol=0, equal_nan=True)


@pytest.mark.usefixtures("plain")
def test_voxels_can_be_chosen(hits: Path, tmp_path: Path) -> None:
    image(hits, design(), "poca", tmp_path / "run", voxel=0.05)
    assert read_image(tmp_path / "run" / "image.h5").x0.shape == (12, 20, 20)


@pytest.mark.usefixtures("plain")
def test_foreign_table_gives_the_same_image(hits: Path, tmp_path: Path) -> None:
    rows = read_rows(hits)
    foreign = {
        "evt": rows["event"],
        "X": rows["x"] * 1e3,
        "Y": rows["y"] * 1e3,
        "height": rows["z"] * 1e3,
        "p": rows["momentum"] * 1e3,
    }
    path = write_foreign(tmp_path / "foreign.npz", foreign)
    mapping = {
        "event": "evt", "x": "X [mm]", "y": "Y [mm]", "z": "height [mm]", "momentum": "p [MeV]",
        "x_unc": "0.1 mm", "y_unc": "0.1 mm",
    }  # fmt: skip
    (tmp_path / "map.yaml").write_text(yaml.safe_dump(mapping))
    image(hits, design(), "poca", tmp_path / "ours")
    # neither plane nor position: they follow from the heights and the design
    image(path, design(), "poca", tmp_path / "theirs", columns=tmp_path / "map.yaml")
    one, other = (read_image(tmp_path / name / "image.h5") for name in ("ours", "theirs"))
    torch.testing.assert_close(one.inverse_x0, other.inverse_x0, rtol=1e-3, atol=1e-2, equal_nan=True)


@pytest.mark.usefixtures("plain")
def test_assumed_momentum_is_said(hits: Path, tmp_path: Path) -> None:
    rows = read_rows(hits)
    rows.pop("momentum")
    path = write_hits(tmp_path / "hits.npz", rows)
    with pytest.warns(PhysicsWarning, match="no column `momentum`: all muons were taken to have 5 GeV"):
        result = image(path, design(), "poca", tmp_path / "assumed")
    assert "no column `momentum`" in result["warnings"][0]
    image(hits, design(), "poca", tmp_path / "known")
    one, other = (read_image(tmp_path / name / "image.h5") for name in ("assumed", "known"))
    torch.testing.assert_close(one.inverse_x0, other.inverse_x0, equal_nan=True)
    with pytest.warns(PhysicsWarning, match="taken to have 10 GeV"):
        image(path, design(), "poca", tmp_path / "double", momentum=10.0)
    double = read_image(tmp_path / "double" / "image.h5")
    ratio = double.inverse_x0.nansum() / one.inverse_x0.nansum()
    assert 3 < float(ratio) < 4.2  # the square of the momentum, less what Highland's logarithm takes
    with pytest.raises(InputError, match=r"has muons of all momenta: say which to assume by --momentum"):
        image(path, design(momentum=None), "poca", tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_all_muons_missing_is_a_result(hits: Path, tmp_path: Path) -> None:
    rows = read_rows(hits)
    above = {name: values[(rows["position"] == 0) & (rows["event"] < 50)] for name, values in rows.items()}
    path = write_hits(tmp_path / "above.npz", above)
    with pytest.warns(
        NoMuonsWarning, match=r"none of the \d+ events of .* could be used: \d+ fewer than two hits below"
    ):
        result = image(path, design(), "poca", tmp_path / "run")
    assert result["status"] == "complete"
    assert "no muon could be used" in result["reason"]
    assert result["muons"] == 0
    assert "The image is empty" in result["warnings"][0]
    assert read_image(tmp_path / "run" / "image.h5").x0.isnan().all()
    assert (tmp_path / "run" / "slices.png").is_file()


@pytest.mark.usefixtures("plain")
def test_table_without_rows_is_a_result(tmp_path: Path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NoMuonsWarning)
        simulate(design(span=1e-4), 5, tmp_path / "hits.npz")
    with pytest.warns(NoMuonsWarning, match="has no rows. The image is empty"):
        assert image(tmp_path / "hits.npz", design(), "mlem", tmp_path / "run")["muons"] == 0


@pytest.mark.usefixtures("plain")
def test_few_usable_muons_are_a_warning(hits: Path, tmp_path: Path) -> None:
    rows = read_rows(hits)
    keep = (rows["position"] == 0) | (rows["event"] % 3 == 0)
    path = write_hits(tmp_path / "hits.npz", {name: values[keep] for name, values in rows.items()})
    with pytest.warns(PhysicsWarning, match=r"only \d+ of \d+ events could be used: \d+ fewer than two hits below"):
        image(path, design(), "poca", tmp_path / "run")


@pytest.mark.usefixtures("plain")
def test_progress_counts_muons(hits: Path, tmp_path: Path) -> None:
    told: list[tuple[int, int | None, str]] = []
    result = image(hits, design(), "poca", tmp_path / "run", progress=lambda *now: told.append(now))
    events = result["counts"]["events"]
    assert told[0][1] is None
    assert told[-1] == (2 * events, 2 * events, "points of closest approach")


def spoil(path: Path, how: str) -> Any:
    """A table with one fault."""
    rows = {name: values[:800] for name, values in read_rows(path).items()}
    match how:
        case "nan":
            rows["x"][77] = np.nan
        case "negative":
            rows["y_unc"][5] = -1.0
    rows["position"] = np.array(["above", "below"])[rows["position"]]
    return rows


@pytest.mark.parametrize(
    ("how", "error", "message"),
    [
        ("nan", InputError, r"row 77 .*column `x` must hold a finite number: .*got nan"),
        ("negative", InputError, r"row 5 .*column `y_unc` must hold a number greater than 0; got -1.0"),
        ("truncated", FileDamagedError, "cannot be read as NPZ"),
        ("missing", StorageError, "does not exist"),
    ],
)
def test_bad_hits_write_nothing(how: str, error: type[Exception], message: str, hits: Path, tmp_path: Path) -> None:
    path = tmp_path / "hits.npz"
    if how != "missing":
        write_foreign(path, spoil(hits, how))
    if how == "truncated":
        path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(error, match=message) as caught:
        image(path, design(), "poca", tmp_path / "run")
    assert not (tmp_path / "run").exists()
    # the command line ends with code 2 for these
    assert isinstance(caught.value, InputError) or getattr(caught.value, "nothing_written", False)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"method": "poco"}, r"`--method` must be one of 'poca', 'mlem'; got 'poco'. Did you mean 'poca'\?"),
        ({"save": ["vtu"]}, r"`--save` must be one of 'vtk'; got 'vtu'"),
        ({"voxel": 0.07}, r"must be a whole multiple of `voxel` = 0.07; got"),
        ({"voxel": -1.0}, r"`--voxel` must be greater than 0; got -1.0"),
        ({"momentum": 0.0}, r"`--momentum` must be greater than 0; got 0.0"),
        ({"options": {"passess": 3}}, r"method `poca`: .*unexpected keyword argument 'passess'"),
        ({"columns": {"x": "X"}}, r"has no column `X`, which `columns` names for `x`"),
    ],
)
def test_bad_requests_leave_no_folder(change: dict[str, Any], message: str, hits: Path, tmp_path: Path) -> None:
    request: dict[str, Any] = {"hits": hits, "config": design(), "method": "poca", "out": tmp_path / "run"} | change
    with pytest.raises(InputError, match=message):
        image(**request)
    assert not (tmp_path / "run").exists()


@pytest.mark.usefixtures("plain")
def test_folders_that_are_taken(hits: Path, tmp_path: Path) -> None:
    image(hits, design(), "poca", tmp_path / "run", save=["vtk"])
    with pytest.raises(
        InputError, match=r"--out: expected a new or empty folder, given .*, which holds a run \(complete\)"
    ):
        image(hits, design(), "poca", tmp_path / "run")
    image(hits, design(), "poca", tmp_path / "run", voxel=0.2, overwrite=True)
    assert read_image(tmp_path / "run" / "image.h5").x0.shape == (3, 5, 5)
    assert not (tmp_path / "run" / "image.vtk").exists()
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "letter.txt").write_text("precious")
    for overwrite in (False, True):
        with pytest.raises(InputError, match="which holds other files"):
            image(hits, design(), "poca", tmp_path / "home", overwrite=overwrite)
    assert [entry.name for entry in (tmp_path / "home").iterdir()] == ["letter.txt"]
    with pytest.raises(InputError, match="which is a file"):
        image(hits, design(), "poca", tmp_path / "home" / "letter.txt")


@pytest.mark.parametrize(
    ("number", "error", "code"), [(signal.SIGINT, KeyboardInterrupt, None), (signal.SIGTERM, SystemExit, 143)]
)
def test_stopped_simulation_leaves_nothing(
    number: int, error: type[BaseException], code: int | None, tmp_path: Path
) -> None:
    def stop(done: int, *_: object) -> None:
        if done >= 2000:
            signal.raise_signal(number)

    before = signal.getsignal(number)
    with pytest.raises(error) as caught:
        simulate(design(), 5000, tmp_path / "hits.npz", chunk=1000, progress=stop)
    assert getattr(caught.value, "code", None) == code
    assert not list(tmp_path.iterdir())
    assert signal.getsignal(number) == before
