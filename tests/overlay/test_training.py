"""Training of networks: critics, steps, averages, images; small networks where the step does not mind."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from diffdet.core.errors import InputError
from diffdet.core.random import Stream
from diffdet.kernels import pixels
from diffdet.loop.checkpoint import Checkpoints
from diffdet.loop.engine import Loop
from diffdet.overlay.clusters.generator import ClusterGenerator
from diffdet.overlay.training.averages import MovingAverage, refresh_norms
from diffdet.overlay.training.critics import critic_for
from diffdet.overlay.training.data import DEQUANTISATION, SensorImages
from diffdet.overlay.training.discriminator import Discriminator
from diffdet.overlay.training.wgan import WganStep


class Painter(nn.Module):
    """A small network from four numbers to 6 x 8 images."""

    def __init__(self):
        super().__init__()
        self.fc, self.norm = nn.Linear(4, 48), nn.BatchNorm1d(48)

    def forward(self, z):
        return torch.tanh(self.norm(self.fc(z))).view(-1, 1, 6, 8)


class Critic(nn.Module):
    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.Flatten(), nn.Linear(48, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))

    def forward(self, image):
        return self.layers(image)[:, 0]


@pytest.fixture
def images():
    return SensorImages(ClusterGenerator().sample(2, seed=4), Stream("images"))


def make_step(**options):
    torch.manual_seed(0)
    return WganStep(Painter(), Critic(), 4, Stream("test"), **options)


def batches(epoch):
    generator = torch.Generator().manual_seed(epoch)
    for _ in range(4):
        yield -0.8 + 0.1 * torch.randn((8, 1, 6, 8), generator=generator)


def test_images_hold_the_digits_at_their_places_in_rows_3_to_252(images):
    image = images.images(torch.tensor([40, 5]))
    assert image.shape == (2, 1, 256, 768)
    assert (image[:, :, :3] == -1).all()
    assert (image[:, :, 253:] == -1).all()
    charge = pixels.charge_from_activation(image, rounding="nearest")[:, 0, 3:253]
    assert torch.equal(charge[0].to(torch.uint8), images.digits.to_images()[1, 0])
    assert torch.equal(charge[1].to(torch.uint8), images.digits.to_images()[0, 5])


def test_noise_moves_charges_up_by_less_than_its_width(images):
    plain = images.images(torch.tensor([0]))
    noisy = images.images(torch.tensor([0]), torch.Generator().manual_seed(0))
    assert ((noisy - plain >= 0) & (noisy - plain <= 2 * DEQUANTISATION + 1e-6)).all()


def test_an_epoch_passes_every_image_once_in_an_order_of_its_own(images):
    seen = torch.cat([batch.sum((1, 2, 3)) for batch in images.shuffled(1, 10)])
    other = torch.cat([batch.sum((1, 2, 3)) for batch in images.shuffled(2, 10)])
    assert len(seen) == 80
    assert torch.allclose(seen.sort().values, other.sort().values)
    assert not torch.equal(seen, other)
    with pytest.raises(InputError, match="batch_size"):
        next(images.shuffled(1, 81))


@pytest.mark.parametrize("model", ["convnet", "resnet"])
def test_critics_score_every_image_by_itself(model):
    torch.manual_seed(0)
    critic = critic_for(model)
    x = torch.randn(2, 1, 256, 768, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(critic(x)[:1], critic(x[:1]), atol=1e-4)
    with pytest.raises(InputError, match="convnet"):
        critic_for("ieagan")


def test_discriminator_has_the_published_number_of_parameters_and_unit_embeddings():
    torch.manual_seed(0)
    network = Discriminator().eval()
    assert sum(p.numel() for p in network.parameters()) == 4_476_610
    with torch.no_grad():
        judged = network(torch.randn(2, 1, 256, 768, generator=torch.Generator().manual_seed(0)), torch.tensor([0, 39]))
    assert judged.score.shape == (2,)
    for one in (judged.embedding, judged.proxy):
        assert torch.allclose(one.norm(dim=1), torch.ones(2), atol=1e-5)


def test_the_generator_learns_after_every_so_many_batches_of_the_critic():
    step = make_step(n_critic=2)
    Loop(step).run(batches, n_epochs=1)
    critic, generator = step.updates
    assert (critic.n_steps, generator.n_steps) == (4, 2)
    assert step.average.count == 2


def test_training_brings_generated_images_nearer_to_the_real_ones():
    step = make_step(n_critic=2, rate=3e-3, decay=0.9)
    before = step.generator(torch.randn(64, 4, generator=torch.Generator().manual_seed(0))).mean().item()
    Loop(step).run(batches, n_epochs=150)
    after = step.generator(torch.randn(64, 4, generator=torch.Generator().manual_seed(0))).mean().item()
    assert abs(after + 0.8) < 0.5 * abs(before + 0.8)


def test_a_run_in_two_pieces_is_a_run_in_one(tmp_path):
    whole = make_step()
    Loop(whole).run(batches, n_epochs=3)
    first = make_step()
    Loop(first, checkpoints=Checkpoints(tmp_path)).run(batches, n_epochs=1)
    second = make_step()
    Loop(second, checkpoints=Checkpoints(tmp_path)).run(batches, n_epochs=3, resume=True)
    for name, value in whole.state_dict()["generator"].items():
        assert torch.equal(second.state_dict()["generator"][name], value), name
    assert second.average.count == whole.average.count


def test_average_of_weights_is_a_geometric_mean_over_updates():
    network = nn.Linear(1, 1, bias=False)
    with torch.no_grad():
        network.weight.fill_(0)
        average = MovingAverage(network, decay=0.5)
        for value in (1.0, 2.0):
            network.weight.fill_(value)
            average.update()
    assert average.average.weight.item() == pytest.approx(0.5 * 0.5 * 1 + 0.5 * 2)


def test_statistics_of_norms_become_means_over_batches():
    torch.manual_seed(0)
    network = Painter()
    z = [torch.randn(16, 4, generator=torch.Generator().manual_seed(k)) for k in range(3)]
    refresh_norms(network, lambda number: network(z[number]), 3)
    wanted = torch.stack([network.fc(one).mean(0) for one in z]).mean(0)
    assert torch.allclose(network.norm.running_mean, wanted, atol=1e-5)
    assert network.norm.momentum == 0.1
    assert not network.training
