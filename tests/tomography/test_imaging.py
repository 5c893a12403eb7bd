"""Closure: what our own transport scattered, the image finds again; and images survive the disk."""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from diffdet.core.errors import FileDamagedError, InputError, StorageError
from diffdet.core.random import Stream
from diffdet.kernels import lines, scattering
from diffdet.tomography.core import X0
from diffdet.tomography.imaging import (
    METHODS,
    MuonTracks,
    TrackStore,
    VoxelImage,
    make_grid,
    make_image,
    read_image,
    save_image,
    save_vtk,
)
from diffdet.tomography.io import HitTable
from diffdet.tomography.muon.generation import MuonGenerator2016
from diffdet.tomography.muon.muon_batch import MuonBatch
from diffdet.tomography.volume.layer import PanelDetectorLayer, PassiveLayer
from diffdet.tomography.volume.panel import DetectorPanel
from diffdet.tomography.volume.volume import Volume

SIZE, N_Z, BOTTOM = 0.1, 10, 0.25
GRID = make_grid((0, 0, BOTTOM), (1, 1, BOTTOM + N_Z * SIZE), SIZE)
BLOCK = slice(3, 6)
"""Voxels of the block along every axis: 30 cm, from 0.3 to 0.6 m above the low corner."""


def layout(background: float, block: float | None) -> Callable[..., Tensor]:
    """Radiation lengths of a layer: a background with a block, or without."""

    def load(*, z: Tensor, lw: Tensor, size: float) -> Tensor:
        layer = torch.full((round(float(lw[0]) / size), round(float(lw[1]) / size)), background)
        if block is not None and BLOCK.start <= round((float(z) - BOTTOM) / size) - 1 < BLOCK.stop:
            layer[BLOCK, BLOCK] = block
        return layer

    return load


@cache
def volume() -> Volume:
    """A cubic metre between four wide panels above and four below, 0.1 mm resolution."""
    lw = torch.tensor([1.0, 1.0])

    def panels(top: float) -> list[DetectorPanel]:
        where: Any = {"init_xy_span": (4.0, 4.0), "res": 1e4, "eff": 1.0}
        return [DetectorPanel(init_xyz=(0.5, 0.5, top - 0.02 - 0.07 * k), **where) for k in range(4)]

    top = BOTTOM + N_Z * SIZE
    layers = [
        PanelDetectorLayer("above", lw=lw, z=top + 0.25, size=0.25, panels=panels(top + 0.25)),
        *(PassiveLayer(lw, top - k * SIZE, SIZE) for k in range(N_Z)),
        PanelDetectorLayer("below", lw=lw, z=BOTTOM, size=BOTTOM, panels=panels(BOTTOM)),
    ]
    whole = Volume(layers)
    return whole.eval()


@cache
def flown(background: str, block: str | None, n: int, seed: int, momentum: float | None) -> tuple[HitTable, Tensor]:
    """Hits of muons through a layout, and the radiation lengths that each really crossed."""
    apparatus = volume()
    apparatus.load_rad_length(layout(X0[background], None if block is None else X0[block]))
    stream = Stream(seed, "closure").muons()
    with torch.no_grad():
        source = MuonGenerator2016.from_volume(apparatus, fixed_mom=momentum)
        mu = MuonBatch(source(n, stream=stream), apparatus.h, stream=stream)
        apparatus(mu)
    sides = [mu.hit_batch(pos) for pos in ("above", "below")]
    xy = torch.stack([hits.reco_xy for hits in sides]).double()
    unc = torch.stack([hits.unc_xy for hits in sides]).double()
    z = torch.stack([hits.z.expand(-1, len(mu)) for hits in sides]).double()
    mask = torch.stack([hits.mask for hits in sides])
    plane = torch.arange(8).reshape(2, 4, 1).expand(2, 4, len(mu))
    table = HitTable(
        mu.ids, xy[:, :, 0], xy[:, :, 1], z.detach(), unc[:, :, 0], unc[:, :, 1], plane, mask, mu.mom.double()
    )
    return table, mu.n_rad.double()


def tracks(
    background: str, block: str | None = None, n: int = 30_000, seed: int = 1, momentum: float | None = 5.0
) -> Any:
    table, n_rad = flown(background, block, n, seed, momentum)
    return [MuonTracks.from_hits(table, GRID)], n_rad


def mean_in_block(image: VoxelImage) -> float:
    return float(image.inverse_x0[BLOCK, BLOCK, BLOCK].mean())


def far_from_block() -> Tensor:
    """Voxels that do not touch the block."""
    near = torch.zeros(N_Z, 10, 10, dtype=torch.bool)
    near[2:7, 2:7, 2:7] = True
    return ~near


@pytest.mark.parametrize("background", ["beryllium", "aluminium"])
@pytest.mark.parametrize("momentum", [5.0, None])
def test_total_scattering_of_a_slab_is_unbiased(background: str, momentum: float | None) -> None:
    """Sum rule: radiation lengths by path, summed over the image, are those crossed.

    Within 3 %, three times the standard error of 27,000 muons. It holds with a spectrum of momenta, and for thin and
    thick matter, so the logarithm is right.
    """
    chunks, n_rad = tracks(background, momentum=momentum)
    image = make_image(chunks, GRID, "poca")
    recovered = float((image.inverse_x0 * image.path_length).nansum())
    assert recovered == pytest.approx(float(n_rad.sum()), rel=0.03)


def test_the_logarithm_matters_and_two_passes_are_enough() -> None:
    chunks, _ = tracks("beryllium")
    one, two, four = (make_image(chunks, GRID, "poca", passes=k).inverse_x0.nansum() for k in (1, 2, 4))
    assert abs(float(two / four) - 1) < 0.01
    chunks, _ = tracks("graphite")
    one, two = (make_image(chunks, GRID, "poca", passes=k).inverse_x0.nansum() for k in (1, 2))
    # F(n) = n (1 + 0.038 ln n)^2 at n = 5.2, the thickness of 1 m of graphite
    assert float(one / two) == pytest.approx((1 + 0.038 * math.log(5.2)) ** 2, rel=0.05)


@pytest.mark.parametrize("method", ["poca", "mlem"])
@pytest.mark.parametrize("background", ["beryllium", "air"])
@pytest.mark.parametrize("momentum", [5.0, None])
def test_lead_block_is_found(method: str, background: str, momentum: float | None) -> None:
    """27 litres of lead, 27,000 muons: at its place within a voxel, X0 within 1.3 (poca) or 1.15 (mlem) of lead's, and
    nothing beyond its neighbours within a factor 3 of it."""
    chunks, _ = tracks(background, "lead", momentum=momentum)
    options = {"iterations": 30} if method == "mlem" else {}
    image = make_image(chunks, GRID, method, **options)
    at = [int(k) for k in torch.unravel_index(image.inverse_x0.nan_to_num().argmax(), image.inverse_x0.shape)]
    assert all(BLOCK.start - 1 <= k <= BLOCK.stop for k in at)
    dense = (image.inverse_x0.nan_to_num() > 0.4 / X0["lead"]).nonzero().double()
    torch.testing.assert_close(dense.mean(0), torch.full((3,), 4.0).double(), atol=0.5, rtol=0)
    factor = 1.15 if method == "mlem" else 1.3
    assert 1 / factor < mean_in_block(image) * X0["lead"] < factor
    assert float(image.inverse_x0[far_from_block()].max()) < 1 / (3 * X0["lead"])


def test_maximum_likelihood_is_right_where_closest_approach_is_not() -> None:
    """Layers of homogeneous beryllium: mlem within 20 % of 1/X0 in each, poca off by more than a factor 2 in some."""
    chunks, _ = tracks("beryllium")
    truth = 1 / X0["beryllium"]
    profiles = {}
    for method in ("poca", "mlem"):
        density = make_image(chunks, GRID, method).inverse_x0[:, 2:8, 2:8]
        profiles[method] = density.mean((1, 2)) / truth
    assert float((profiles["mlem"] - 1).abs().max()) < 0.2
    assert float(profiles["poca"].max()) > 2
    assert float(profiles["poca"].min()) < 0.5


def test_likelihood_grows_with_every_iteration() -> None:
    chunks, _ = tracks("beryllium", "lead", n=5000)
    found = [make_image(chunks, GRID, "mlem", iterations=k).settings["log_likelihood"] for k in (1, 2, 4, 8, 16)]
    assert found == sorted(found)


def test_nothing_is_found_in_vacuum() -> None:
    """Measurement errors alone: the density is zero within 4 standard errors, half of the voxels have infinite X0."""
    chunks, _ = tracks("air")
    image = make_image(chunks, GRID, "poca")
    seen = image.counts > 100
    by_path = (image.inverse_x0 * image.path_length)[seen].sum() / image.path_length[seen].sum()
    error = (image.inverse_x0_unc * image.path_length)[seen].square().sum().sqrt() / image.path_length[seen].sum()
    assert abs(float(by_path) - 1 / X0["air"]) < 4 * float(error)
    assert float(by_path) < 0.03 / X0["beryllium"]
    assert 0.2 < float(image.x0[seen].isinf().double().mean()) < 0.8
    assert not image.x0[seen].isnan().any()


COARSE = make_grid((0, 0, BOTTOM), (1, 1, BOTTOM + N_Z * SIZE), 0.25)
"""Voxels with hundreds of muons: the spread of a few is itself uncertain, and skewed."""


def test_uncertainties_are_those_of_repetition() -> None:
    """Twelve repetitions: the core of the pulls has width 1 within 15 %."""
    images = [make_image(tracks("beryllium", n=8000, seed=100 + k)[0], COARSE, "poca") for k in range(12)]
    density = torch.stack([image.inverse_x0 for image in images])
    unc = torch.stack([image.inverse_x0_unc for image in images])
    pull = (density - density.mean(0)) / unc * math.sqrt(12 / 11)
    assert float(pull.abs().median()) / 0.6745 == pytest.approx(1, abs=0.15)


def test_uncertainty_falls_with_the_root_of_the_muons() -> None:
    few, many = (make_image(tracks("beryllium", n=n)[0], COARSE, "poca") for n in (5000, 20_000))
    assert float((few.inverse_x0_unc / many.inverse_x0_unc).median()) == pytest.approx(2, rel=0.15)


@pytest.mark.parametrize("method", METHODS)
def test_chunks_do_not_matter(method: str) -> None:
    chunks, _ = tracks("beryllium", "lead", n=3000)
    (whole,) = chunks
    options = {"iterations": 3} if method == "mlem" else {}

    def part(start: int, stop: int) -> MuonTracks:
        rows = lines.Lines(*(t[..., start:stop] if t.ndim == 2 else t for t in whole.lines))
        return MuonTracks(rows, whole.z_ref, whole.beta_p[start:stop])

    pieces = [part(k, k + 700) for k in range(0, len(whole), 700)]
    one, other = (make_image(made, GRID, method, **options) for made in (chunks, pieces))
    for name in ("inverse_x0", "inverse_x0_unc", "path_length"):
        torch.testing.assert_close(getattr(other, name), getattr(one, name), rtol=1e-9, atol=1e-12, equal_nan=True)
    assert torch.equal(one.counts, other.counts)


def test_store_reads_again_what_does_not_fit() -> None:
    chunks, _ = tracks("beryllium", n=2000)
    calls: list[int] = []

    def source() -> Any:
        calls.append(1)
        yield from chunks * 3

    roomy, tight = TrackStore(source), TrackStore(source, max_bytes=1000)
    for _ in range(3):
        assert len(list(roomy)) == 3
    assert len(calls) == 1
    for _ in range(3):
        assert len(list(tight)) == 3
    assert len(calls) == 4


def test_interrupted_pass_is_not_kept() -> None:
    chunks, _ = tracks("beryllium", n=2000)
    store = TrackStore(lambda: iter(chunks * 3))
    next(iter(store))
    assert len(list(store)) == 3


def small_table(**changes: Any) -> HitTable:
    """Four muons that fall through the middle; the first has all hits."""
    z = torch.tensor([[1.5, 1.4, 1.3], [0.2, 0.1, 0.0]]).double()[:, :, None].expand(2, 3, 4).clone()
    some = torch.full((2, 3, 4), 0.5, dtype=torch.float64) + 1e-3 * torch.arange(24).reshape(2, 3, 4)
    unc = torch.full_like(some, 1e-4)
    mask = torch.ones(2, 3, 4, dtype=torch.bool)
    plane = torch.arange(6).reshape(2, 3, 1).expand(2, 3, 4)
    table = HitTable(torch.arange(4), some, some.clone(), z, unc, unc, plane, mask, torch.full((4,), 3.0).double())
    return HitTable(**{**table.__dict__, **changes})


def test_muons_that_cannot_be_used_are_counted_by_reason() -> None:
    table = small_table()
    table.mask[0, 1:, 1] = False
    table.mask[1, :2, 2] = False
    table.x[:, :, 3] += 5
    found = MuonTracks.from_hits(table, GRID)
    assert len(found) == 1
    assert found.dropped == {
        "fewer than two hits above": 1,
        "fewer than two hits below": 1,
        "track misses the volume": 1,
    }
    assert float(found.beta_p) == pytest.approx(float(scattering.beta_momentum(torch.tensor(3.0))))


def test_hits_at_one_height_have_no_slope() -> None:
    table = small_table()
    table.z[0, :, 2] = 1.3
    assert MuonTracks.from_hits(table, GRID).dropped == {"no slope: all hits of a side at one height": 1}


def test_limit_of_the_angle() -> None:
    table = small_table()
    table.x[1, 0, 1] += 0.1
    assert MuonTracks.from_hits(table, GRID, max_angle=0.3).dropped == {"scattered by more than 0.3 rad": 1}


def test_momentum_is_needed_or_assumed() -> None:
    with pytest.raises(InputError, match="no column `momentum`: give the `momentum` to assume"):
        MuonTracks.from_hits(small_table(momentum=None), GRID)
    found = MuonTracks.from_hits(small_table(momentum=None), GRID, momentum=3.0)
    torch.testing.assert_close(found.beta_p, MuonTracks.from_hits(small_table(), GRID).beta_p)


@pytest.mark.parametrize("method", METHODS)
def test_no_muons_at_all(method: str) -> None:
    nothing = torch.zeros(2, 0, 0, dtype=torch.float64)
    mask, none = nothing.bool(), torch.zeros(0, dtype=torch.float64)
    empty = HitTable(none.long(), nothing, nothing, nothing, nothing, nothing, mask.long(), mask, none)
    for chunks in ([], [MuonTracks.from_hits(empty, GRID)]):
        image = make_image(chunks, GRID, method)
        assert image.n_muons == 0
        assert image.x0.isnan().all()
        assert image.inverse_x0.isnan().all()
        assert image.counts.sum() == 0


def test_wrong_choices_are_refused() -> None:
    with pytest.raises(InputError, match=r"`method` must be one of 'poca', 'mlem'; got 'poco'. Did you mean 'poca'\?"):
        make_image([], GRID, "poco")
    with pytest.raises(InputError, match=r"method `poca`: .*unexpected keyword argument 'iterations'"):
        make_image([], GRID, "poca", iterations=3)
    with pytest.raises(InputError, match="`passes` must be greater than 0"):
        make_image([], GRID, "poca", passes=0)
    with pytest.raises(InputError, match=r"`length of the volume in z` must be a whole multiple of `voxel` = 0.3"):
        make_grid((0, 0, 0), (0.9, 0.6, 1.0), 0.3)


# ------------------------------------------------------------------------------------------------------------- on disk


def picture() -> VoxelImage:
    chunks, _ = tracks("beryllium", "lead", n=3000)
    grid = make_grid((-0.5, 0, BOTTOM), (0.5, 1.2, 1.25), 0.1)
    return make_image(chunks, grid, "poca")


def test_image_survives_the_disk(tmp_path: Path) -> None:
    image = picture()
    save_image(image, tmp_path / "image.h5")
    again = read_image(tmp_path / "image.h5")
    assert (again.grid.low, again.grid.counts) == (image.grid.low, image.grid.counts)
    assert (again.method, again.n_muons, again.settings) == (image.method, image.n_muons, image.settings)
    for name in ("x0", "x0_unc", "inverse_x0", "inverse_x0_unc", "counts", "path_length"):
        torch.testing.assert_close(getattr(again, name), getattr(image, name), rtol=0, atol=0, equal_nan=True)


def test_image_file_holds_what_the_contract_says(tmp_path: Path) -> None:
    import h5py

    image = picture()
    save_image(image, tmp_path / "image.h5")
    with h5py.File(tmp_path / "image.h5") as file:
        assert file["x0"].shape == file["x0_unc"].shape == file["counts"].shape == (10, 10, 12)
        assert file["edges_x"][:] == pytest.approx(np.arange(11) / 10 - 0.5)
        assert file["edges_y"][-1] == pytest.approx(1.2)
        assert file["edges_z"][:] == pytest.approx(BOTTOM + np.arange(11) / 10)
        assert file.attrs["method"] == "poca"
        assert file.attrs["units"] == "m"
        assert file.attrs["muons"] == image.n_muons
        assert file.attrs["exposure"] == pytest.approx(image.n_muons / 1.2)
        assert all(file[name].fletcher32 for name in file)


def test_damaged_image_is_noticed(tmp_path: Path) -> None:
    image = picture()
    path = tmp_path / "image.h5"
    save_image(image, path)
    data = bytearray(path.read_bytes())
    rng = np.random.default_rng(1)
    for at in rng.integers(0, len(data), 60):
        data[at] ^= 1 << int(rng.integers(8))
        path.write_bytes(data)
        with suppress(FileDamagedError, InputError):
            again = read_image(path)
            torch.testing.assert_close(again.inverse_x0, image.inverse_x0, rtol=0, atol=0, equal_nan=True)
            assert torch.equal(again.counts, image.counts)
        save_image(image, path)
        data = bytearray(path.read_bytes())
    path.write_bytes(data[:-100])
    with pytest.raises(FileDamagedError, match=r"image.h5 cannot be read as HDF5"):
        read_image(path)


def test_other_files_are_no_images(tmp_path: Path) -> None:
    import h5py

    with pytest.raises(StorageError, match="does not exist"):
        read_image(tmp_path / "none.h5")
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x0"] = np.zeros(3)
    with pytest.raises(InputError, match="must be a voxel image that diffdet wrote"):
        read_image(tmp_path / "other.h5")
    save_image(picture(), tmp_path / "image.h5")
    with h5py.File(tmp_path / "image.h5", "a") as file:
        file.attrs["format_version"] = 2
        file.attrs["diffdet"] = "9.9"
    with pytest.raises(InputError, match=r"was written by diffdet 9.9 in format 2; this one reads 1"):
        read_image(tmp_path / "image.h5")


def test_vtk_puts_every_value_in_its_cell(tmp_path: Path) -> None:
    image = picture()
    save_vtk(image, tmp_path / "image.vtk")
    header, _, rest = (tmp_path / "image.vtk").read_bytes().partition(b"CELL_DATA 1200\n")
    assert header.splitlines()[2:] == [
        b"BINARY",
        b"DATASET STRUCTURED_POINTS",
        b"DIMENSIONS 11 13 11",
        b"ORIGIN -0.5 0.0 0.25",
        b"SPACING 0.1 0.1 0.1",
    ]
    for name in ("x0", "x0_unc", "inverse_x0", "counts"):
        head = f"SCALARS {name} double 1\nLOOKUP_TABLE default\n".encode()
        assert rest.startswith(head)
        values = np.frombuffer(rest[len(head) :][: 1200 * 8], ">f8").reshape(10, 12, 10)  # z, y, x
        expected = getattr(image, name).double().numpy()
        np.testing.assert_array_equal(values, np.where(np.isfinite(expected), expected, np.nan).transpose(0, 2, 1))
        rest = rest[len(head) + 1200 * 8 + 1 :]
    assert rest == b""


@pytest.mark.parametrize("case", ["usual", "empty", "tall", "one voxel"])
def test_pictures_can_be_drawn(case: str, tmp_path: Path) -> None:
    from diffdet.tomography.plotting import appearance
    from diffdet.tomography.plotting.voxel_image import densest, layers_figure, slices_figure

    chunks = [] if case == "empty" else tracks("beryllium", "lead", n=3000)[0]
    grid = {
        "tall": make_grid((0.4, 0.4, BOTTOM), (0.6, 0.6, 1.25), 0.02),
        "one voxel": make_grid((0, 0, BOTTOM), (1, 1, 1.25), 1.0),
    }.get(case, GRID)
    image = make_image(chunks, grid, "poca")
    for draw in (slices_figure, layers_figure):
        appearance.save(draw(image, title="muons"), tmp_path / "picture.png")
        assert (tmp_path / "picture.png").read_bytes().startswith(b"\x89PNG")
    if case == "usual":
        assert all(BLOCK.start <= k < BLOCK.stop for k in densest(image))
