"""Muons that would miss the passive volume are replaced by muons that would not."""

from __future__ import annotations

import math
import time
from typing import Any

import pytest
import torch
from scipy import stats
from torch import Tensor

import tiny_fit
from diffdet.core.errors import NoHitsError
from diffdet.core.random import MUON_BLOCK, MuonStream, Stream
from diffdet.tomography.benchmarks.ladle_furnace.volume import get_initial_detector
from diffdet.tomography.muon.generation import MuonGenerator2016
from diffdet.tomography.muon.muon_batch import MuonBatch
from diffdet.tomography.optimisation.callbacks.callback import Callback
from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.volume.volume import Volume


def ladle_like() -> Volume:
    """Ten passive layers from 1.4 m down to 0.4 m below muons that start at 1.8 m."""
    return Volume(get_initial_detector())


SOURCE = MuonGenerator2016((-0.4, 1.4), (-0.4, 1.4))


def accepted_slowly(columns: Tensor, vol: Volume) -> list[bool]:
    """The documented rule, muon by muon and layer by layer."""
    out = []
    for x, y, _, theta, phi in columns.double().tolist():
        inside = False
        for layer in vol.get_passives():
            path = (float(vol.h) - layer.top) * math.tan(theta)
            px, py = x + path * math.cos(phi), y + path * math.sin(phi)
            inside |= 0 <= px < layer.extent[0] and 0 <= py < layer.extent[1]
        out.append(inside)
    return out


def test_accepted_are_those_that_cross_the_top_of_a_passive_layer() -> None:
    vol = ladle_like()
    columns = SOURCE(2000, stream=Stream(3).muons()).double()
    found = MuonResampler.check_mu_batch(MuonBatch(columns, init_z=vol.h), vol)
    assert found.tolist() == accepted_slowly(columns, vol)
    assert 0.2 < found.double().mean() < 0.8


def test_a_muon_that_passes_below_the_lowest_top_is_refused() -> None:
    vol = ladle_like()
    theta = math.atan(1.0)
    # From x = -d at the top it enters at height 1.8 - d: through the lowest layer's side for d between 1.3 and 1.4.
    starts = torch.tensor([[-d, 0.5, 5.0, theta, 0.0] for d in (0.39, 1.29, 1.31, 1.41)], dtype=torch.float64)
    found = MuonResampler.check_mu_batch(MuonBatch(starts, init_z=1.8), vol)
    assert found.tolist() == [True, True, False, False]
    vertical = torch.tensor([[0.0, 0.0, 5.0, 0.0, 0.0], [1.0, 0.5, 5.0, 0.0, 0.0]])
    assert MuonResampler.check_mu_batch(MuonBatch(vertical, init_z=1.8), vol).tolist() == [True, False]


def test_a_horizontal_muon_is_refused() -> None:
    mu = MuonBatch(torch.tensor([[0.5, 0.5, 5.0, math.pi / 2, 0.0]], dtype=torch.float64), init_z=1.8)
    mu.direction[2] = 0.0
    assert MuonResampler.check_mu_batch(mu, ladle_like()).tolist() == [False]


def test_all_are_accepted_afterwards_and_accepted_ones_stay() -> None:
    vol, stream = ladle_like(), Stream(1).muons()
    columns = SOURCE(3000, stream=stream).double()
    before = torch.tensor(accepted_slowly(columns, vol))
    new = MuonResampler.resample(columns, vol, SOURCE, stream=stream)
    assert all(accepted_slowly(new, vol))
    assert torch.equal(new[before], columns[before])
    assert not torch.equal(new, columns)
    with_z = torch.cat([columns[:, :2], torch.full((3000, 1), 1.8), columns[:, 2:]], 1)
    assert torch.equal(MuonResampler.resample(with_z, vol, SOURCE, stream=stream), new)
    assert len(torch.unique(new[:, 0])) > 2990, "no muon is used twice"


def test_replacements_have_the_distribution_of_accepted_muons_p_above_1_per_mille() -> None:
    vol, stream = ladle_like(), Stream(2).muons()
    columns = SOURCE(20_000, stream=stream)
    refused = ~MuonResampler.check_mu_batch(MuonBatch(columns, init_z=vol.h), vol)
    new = MuonResampler.resample(columns, vol, SOURCE, stream=stream)[refused]
    accepted = columns[~refused]
    for k in (0, 1, 3, 4):
        assert stats.ks_2samp(new[:, k].numpy(), accepted[:, k].numpy()).pvalue > 1e-3


class Flown(Callback):
    """Keeps the muons as they begin to fly."""

    def __init__(self) -> None:
        self.muons: list[Tensor] = []

    def on_mu_batch_begin(self) -> None:
        assert self._fit.mu is not None
        self.muons.append(self._fit.mu.muons.clone())


@pytest.mark.parametrize("batch", [17, 100, 1000, 1024, 1300])
def test_a_muon_does_not_depend_on_the_batch_it_flies_in(batch: int) -> None:
    def fly(size: int) -> Tensor:
        flown = Flown()
        tiny_fit.wrapper(
            mu_generator=MuonGenerator2016((-0.3, 0.8), (-0.3, 0.8)),
            partial_scatter_inferrer=_Ignored,
            partial_volume_inferrer=_Nothing,
        ).predict(PassiveYielder(tiny_fit.layouts(2)), 1300, size, cbs=[MuonResampler(), flown])
        return torch.cat(flown.muons)

    whole = fly(1300)
    assert whole.shape == (2600, 6)
    assert torch.equal(fly(batch), whole)


class _Ignored:
    """Scatterings that nobody looks at."""

    def __init__(self, **_more: Any) -> None:
        pass


class _Nothing:
    """An inferrer without opinion."""

    def __init__(self, **_more: Any) -> None:
        pass

    def add_scatters(self, scatters: _Ignored) -> None:
        pass

    def get_prediction(self) -> Tensor:
        return torch.zeros(1)


def test_batches_may_come_in_any_order() -> None:
    """A batch from the middle of a block finds out by itself how many before it were replaced."""
    vol, stream = ladle_like(), Stream(4).muons()
    whole = MuonResampler.resample(SOURCE(3000, stream=stream), vol, SOURCE, stream=stream)
    for first, n in ((2000, 500), (MUON_BLOCK - 1, 2), (5, 1)):
        part = SOURCE(n, stream=stream, start=first)
        found = MuonResampler.resample(part, vol, SOURCE, stream=stream, first=first)
        assert torch.equal(found, whole[first : first + n])


def test_streams_are_independent() -> None:
    vol = ladle_like()

    def replaced(stream: MuonStream) -> Tensor:
        return MuonResampler.resample(SOURCE(1000, stream=stream), vol, SOURCE, stream=stream)

    assert torch.equal(replaced(Stream(1).muons()), replaced(Stream(1).muons()))
    assert not torch.equal(replaced(Stream(1).muons()), replaced(Stream(2).muons()))
    torch.manual_seed(3)
    one = MuonResampler.resample(SOURCE(1000), vol, SOURCE)
    torch.manual_seed(3)
    assert torch.equal(MuonResampler.resample(SOURCE(1000), vol, SOURCE), one)


def test_a_source_that_misses_the_volume_is_told_with_the_bound() -> None:
    away = MuonGenerator2016((50.0, 51.0), (50.0, 51.0))
    began = time.monotonic()
    with pytest.raises(NoHitsError, match=r"only 0 of 1048576 muons \(the bound\) would touch .* x from 50 to 51 m"):
        MuonResampler.resample(away(10), ladle_like(), away)
    assert time.monotonic() - began < 60  # a bound, not a benchmark: it must end at all


def test_the_dtype_follows_the_muons() -> None:
    vol, stream = ladle_like(), Stream(1).muons()
    for dtype in (torch.float32, torch.float64):
        columns = SOURCE(500, stream=stream).to(dtype)
        assert MuonResampler.resample(columns, vol, SOURCE, stream=stream).dtype == dtype
