"""The loss of the buried walls."""

import pytest
import torch

from diffdet.core.errors import ShapeError
from diffdet.core.random import Stream
from diffdet.tomography.benchmarks.small_walls.data import SmallWallsPassiveGenerator
from diffdet.tomography.benchmarks.small_walls.loss import ContrastLoss
from diffdet.tomography.benchmarks.small_walls.volume import get_small_walls_volume
from diffdet.tomography.inference.volume import PanelX0Inferrer
from diffdet.tomography.optimisation.callbacks.data_callbacks import MuonResampler
from diffdet.tomography.optimisation.callbacks.grad_callbacks import NoMoreNaNs
from diffdet.tomography.optimisation.data.passives import PassiveYielder
from diffdet.tomography.optimisation.wrapper.volume_wrapper import ArbVolumeWrapper


@pytest.fixture
def walls():
    volume = get_small_walls_volume()
    volume.load_rad_length(*SmallWallsPassiveGenerator(volume).get_data(generator=Stream(3).generator()))
    return volume


def test_a_true_map_has_no_loss_whatever_its_scale_and_its_layers(walls):
    truth = walls.get_rad_cube()
    loss = ContrastLoss(target_budget=None)
    assert loss(truth, walls).item() == pytest.approx(0, abs=1e-5)
    biased = truth.square() * torch.linspace(0.5, 2, 10)[:, None, None]
    assert loss(biased, walls).item() == pytest.approx(0, abs=1e-5)
    assert loss(1 / truth, walls).item() == pytest.approx(2, abs=1e-5)


def test_a_map_without_walls_has_loss_one(walls):
    assert ContrastLoss(target_budget=None)(torch.full((10, 10, 10), 0.3), walls).item() == 1


def test_a_prediction_of_another_shape_is_refused(walls):
    with pytest.raises(ShapeError, match=r"10, 10, 10.*10, 10"):
        ContrastLoss(target_budget=None)(torch.ones(10, 10), walls)


def test_walls_show_in_a_step_of_the_whole_chain_and_move_panels(walls):
    wrapper = ArbVolumeWrapper(
        walls,
        opts={"xy_pos_opt": torch.optim.SGD([panel.xy for panel in walls.yield_panels()], lr=1.0)},
        partial_volume_inferrer=PanelX0Inferrer,
        loss_func=ContrastLoss(target_budget=None),
        seed=2,
    )
    before = [panel.xy.detach().clone() for panel in walls.yield_panels()]
    layouts = PassiveYielder(SmallWallsPassiveGenerator(walls), n_passives=2)
    wrapper.fit(1, 2, 4000, 4000, layouts, None, cbs=[MuonResampler(), NoMoreNaNs()])
    assert all(not torch.equal(a, b.xy) for a, b in zip(before, walls.yield_panels(), strict=True))
    # panels of 40 m see everything; a random map has loss 1 +- 0.03
    assert wrapper.last_fit.history.column("loss", "train")[-1] < 0.9
