"""The module: events, inside a stand-in of basf2 and outside."""

from __future__ import annotations

import sys
import types

import pytest
import torch
from torch import nn

from basf2_doubles import C_EVENT, C_PERSISTENT, Basf2Double
from diffdet.core.errors import CheckpointError, InputError, NotSupportedError
from diffdet.overlay.conditions import Conditions
from diffdet.overlay.generator import make_generator
from diffdet.overlay.sensors import PXD
from diffdet.pxd.background_generator import PXDBackgroundGenerator, models
from overlay_scenes import sparse_resnet


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("weights") / "resnet.pt"
    torch.save(sparse_resnet().state_dict(), path)
    return path


def rows_of(digits):
    table = torch.tensor(PXD.vxdids)
    columns = (table[digits.sensor], digits.u, digits.v, digits.charge)
    return list(zip(*(column.tolist() for column in columns), strict=True))


def test_outside_basf2_events_come_one_after_the_other():
    module = PXDBackgroundGenerator("clusters", seed=4)
    module.initialize()
    for number in range(2):
        module.event()
        assert module.digits.equal(module.sample(1, start=number))
    assert module.digits.equal(make_generator("clusters").sample(1, seed=4, start=1))
    assert module.describe()["seed"] == 4


def test_an_event_is_the_same_in_any_batch_and_order():
    module = PXDBackgroundGenerator("clusters", seed=4)
    module.initialize()
    together = module.sample(4, experiment=1, run=2, start=10)
    alone = module.sample(1, experiment=1, run=2, start=12)
    assert alone.equal(together.select(2, 3))
    other = PXDBackgroundGenerator("clusters", seed=5)
    other.initialize()
    assert not other.sample(1, experiment=1, run=2, start=12).equal(alone)
    assert not module.sample(1, experiment=1, run=3, start=12).equal(alone)
    assert not module.sample(1, experiment=2, run=2, start=12).equal(alone)


def test_torchs_own_generator_and_threads_stay_untouched():
    before, threads = torch.get_rng_state(), torch.get_num_threads()
    for _ in range(2):  # a second module in the process is no problem
        module = PXDBackgroundGenerator("clusters", seed=4, nintra=2, ninter=1)
        module.initialize()
        module.event()
    assert torch.equal(torch.get_rng_state(), before)
    assert torch.get_num_threads() == threads


@pytest.mark.slow
def test_a_network_in_compatible_mode_draws_what_the_published_module_draws(resnet_file):
    module = PXDBackgroundGenerator("resnet", resnet_file, seed=-7, compatible=True)
    module.initialize()
    module.event()
    first = module.digits.to_images()[0]
    model = sparse_resnet()
    torch.manual_seed(-7)  # what the published module does once
    expected = models.attribute_of("resnet", "generate")(model)
    assert expected.shape == (40, 250, 768)
    assert expected.dtype == torch.uint8
    assert torch.equal(first, expected)
    assert 0 < int((first < 7).sum())


def test_a_network_is_fast_and_respects_the_threshold_by_default(resnet_file):
    module = PXDBackgroundGenerator("resnet", resnet_file, seed=1, conditions=Conditions(missing=("1.1.1",)))
    module.initialize()
    digits = module.sample(1)
    assert int(digits.charge.min()) >= 7
    assert int(digits.sensor.min()) == 1
    assert module.describe()["weights_file"] == "resnet.pt"


def test_wrong_weights_fail_in_initialize(resnet_file):
    with pytest.raises(CheckpointError, match=r"convnet.*missing"):
        PXDBackgroundGenerator("convnet", resnet_file).initialize()


class Model(nn.Module):
    """A user's model."""

    def __init__(self) -> None:
        super().__init__()
        self.rate = nn.Parameter(torch.tensor(0.001))


def generate(model):
    """Draws from torch's own generator, as the contract allows."""
    return ((torch.rand(40, 250, 768) < model.rate) * 50).to(torch.uint8)


def test_a_users_model_keeps_the_contract(tmp_path, monkeypatch):
    package = types.ModuleType("users_package_of_models")
    package.Model, package.generate = Model, generate
    monkeypatch.setitem(sys.modules, "users_package_of_models", package)
    monkeypatch.setattr(models, "MODELS", [*models.MODELS])
    monkeypatch.setattr(models, "_PLACES", {})
    models.register("mine", "users_package_of_models")
    torch.save({"rate": torch.tensor(0.002)}, tmp_path / "mine.pt")
    module = PXDBackgroundGenerator("mine", tmp_path / "mine.pt", seed=1)
    module.initialize()
    before = torch.get_rng_state()
    digits = module.sample(2)
    assert torch.equal(torch.get_rng_state(), before)
    assert module.sample(1, start=1).equal(digits.select(1, 2))
    assert 0.0018 < digits.occupancy().mean() < 0.0022
    with pytest.raises(InputError, match="another model"):
        models.register("convnet", "users_package_of_models")


def test_registered_models_without_module_or_parts_say_so(monkeypatch):
    monkeypatch.setattr(models, "MODELS", [*models.MODELS, "ghost"])
    with pytest.raises(ModuleNotFoundError, match=r"'ghost' is registered"):
        PXDBackgroundGenerator("ghost").initialize()
    hollow = types.ModuleType("diffdet.pxd.background_generator.models.ghost")
    monkeypatch.setitem(sys.modules, hollow.__name__, hollow)
    with pytest.raises(AttributeError, match=r"must define `generate`"):
        PXDBackgroundGenerator("ghost").initialize()


# --- inside the stand-in of basf2 ---


def run(double, module, events=((1, 2, 3),)):
    path = double.basf2.create_path()
    for name in ("EventInfoSetter", "BGOverlayInput"):
        path.add_module(name)
    path.add_module(module)
    path.add_module("BGOverlayExecutor")
    double.basf2.process(path, events)


@pytest.mark.parametrize("compiles", [True, False], ids=["filled by C++", "filled one by one"])
def test_overlay_sees_generated_digits_and_nothing_of_the_file(compiles):
    with Basf2Double(compiles=compiles).installed() as double:
        from diffdet.pxd.background_generator import PXDBackgroundGenerator

        module = PXDBackgroundGenerator("clusters", seed=3)
        assert isinstance(module, double.basf2.Module)
        assert module.flags == double.basf2.ModulePropFlags.PARALLELPROCESSINGCERTIFIED
        run(double, module, events=((5, 6, 7), (5, 6, 8)))
        expected = make_generator("clusters").sample(2, seed=3, experiment=5, run=6, start=7)
        assert double.overlaid == [rows_of(event) for event in expected.events()]
        # of the event, and not of the job; not written to files
        assert "PXDDigits_beamBG" in double.store.entries[C_EVENT]
        assert "PXDDigits_beamBG" not in double.store.entries[C_PERSISTENT]
        assert double.written == set()
        assert bool(double.log.at("WARNING")) is not compiles


def test_the_published_order_of_arguments_would_leave_overlay_with_the_file():
    # what the stand-in is for: the flag in the place of the durability registers another array, and nobody complains
    with Basf2Double().installed() as double:
        belle2 = double.root.Belle2

        class Published(double.basf2.Module):
            def initialize(self):
                self.array = belle2.PyStoreArray("PXDDigits", belle2.DataStore.c_DontWriteOut)
                self.array.registerInDataStore("PXDDigits_beamBG")

            def event(self):
                self.array.create()
                self.array.getPtr().Clear()

        run(double, Published())
        assert double.overlaid == [[(8480, 1, 2, 99)]]


def test_digits_come_sorted_by_sensor_v_and_u():
    with Basf2Double().installed() as double:
        from diffdet.pxd.background_generator import PXDBackgroundGenerator

        run(double, PXDBackgroundGenerator("clusters", seed=3))
        rows = [(sensor, v, u) for sensor, u, v, _ in double.overlaid[0]]
        assert rows == sorted(rows)


def test_seed_is_derived_from_that_of_basf2_and_logged():
    with Basf2Double().installed() as double:
        from diffdet.pxd.background_generator import PXDBackgroundGenerator

        run(double, PXDBackgroundGenerator("clusters"))
        assert double.log.at("INFO") == ["PXD background generator seed initialized to 3902246593939837825"]
        expected = make_generator("clusters").sample(1, seed=3902246593939837825, experiment=1, run=2, start=3)
        assert double.overlaid == [rows_of(expected)]


def test_without_overlay_input_there_is_one_clear_error():
    with Basf2Double().installed() as double:
        from diffdet.pxd.background_generator import PXDBackgroundGenerator

        path = double.basf2.create_path()
        path.add_module(PXDBackgroundGenerator("clusters", seed=1))
        with pytest.raises(NotSupportedError, match="BGOverlayInput"):
            double.basf2.process(path)
        assert "BGOverlayInput" in double.log.at("ERROR")[0]


def test_default_weights_come_from_the_conditions_database(resnet_file):
    with Basf2Double(payloads={"PXDBackgroundGenerator_resnet": resnet_file}).installed() as double:
        from diffdet.pxd.background_generator import PXDBackgroundGenerator

        run(double, PXDBackgroundGenerator("resnet", seed=1, globaltag="my_tag"))
        assert double.tags == ["my_tag"]
        assert len(double.overlaid[0]) > 0


def test_the_list_of_tags_is_left_alone_where_the_database_is_not_asked(resnet_file):
    with Basf2Double().installed() as double:
        from diffdet.pxd.background_generator import PXDBackgroundGenerator

        PXDBackgroundGenerator("resnet", resnet_file)
        PXDBackgroundGenerator("clusters")
        assert double.tags == []
        PXDBackgroundGenerator()
        assert double.tags == ["PXDBackgroundGenerator"]


# --- injection ---


def names_of(path):
    return [module.name() for module in path.modules()]


def test_injection_puts_the_module_behind_overlay_input():
    with Basf2Double().installed() as double:
        from diffdet.pxd.background_generator import PXDBackgroundGenerator, inject_simulation

        module = PXDBackgroundGenerator("clusters", seed=1)
        add_simulation = inject_simulation(module)
        original = double.simulation.add_simulation
        assert (add_simulation.__name__, add_simulation.__doc__) == (original.__name__, original.__doc__)
        path = double.basf2.create_path()
        for name in ("EventInfoSetter", "EvtGenInput", "Gearbox"):
            path.add_module(name)
        add_simulation(path, bkgfiles=["a.root"])
        assert names_of(path) == [
            *("EventInfoSetter", "EvtGenInput", "Gearbox", "BGOverlayInput", "PXDBackgroundGenerator"),
            *("Geometry", "FullSim", "BGOverlayExecutor", "PXDDigitSorter"),
        ]  # one Gearbox: the simulation saw that there is one
        assert path.modules()[4] is module
        double.basf2.process(path)
        assert len(double.overlaid[0]) > 10_000


def test_injection_without_background_files_warns():
    with Basf2Double().installed() as double:
        from diffdet.pxd.background_generator import PXDBackgroundGenerator, inject_simulation

        path = double.basf2.create_path()
        inject_simulation(PXDBackgroundGenerator("clusters", seed=1))(path)
        assert names_of(path) == ["Gearbox", "Geometry", "FullSim"]
        assert "bkgfiles" in double.log.at("WARNING")[0]


def test_injection_of_nothing_is_the_original_and_of_anything_else_a_type_error():
    with Basf2Double().installed() as double:
        from diffdet.pxd.background_generator import inject_simulation

        assert inject_simulation() is double.simulation.add_simulation
        with pytest.raises(TypeError, match="`module`"):
            inject_simulation("PXDBackgroundGenerator")
