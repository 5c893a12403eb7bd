"""Descriptions of networks: what they build, what they refuse, and their files."""

from __future__ import annotations

import json
from functools import partial

import numpy as np
import pytest
import torch
from torch import nn

from diffdet.core.errors import CheckpointError, InputError
from diffdet.nn.losses import WeightedMAE, WeightedMSE
from diffdet.nn.models.blocks.body import FullyConnected, MultiBlock
from diffdet.nn.models.blocks.head import CatEmbHead
from diffdet.nn.models.helpers import CatEmbedder
from diffdet.nn.models.initialisations import lookup_uniform_init
from diffdet.nn.models.model import Model
from diffdet.nn.models.model_builder import ModelBuilder
from nn.tiny import FEATS, bits, builder, data, model


def test_a_network_is_head_body_and_tail_under_the_documented_keys():
    net, opt, loss, input_mask = builder(cat_embedder=CatEmbedder(["jets"], [4])).get_model()
    assert {key.split(".")[0] for key in net.state_dict()} == {"0", "1", "2"}
    assert net.state_dict()["1.layers.0.0.weight"].shape == (12, 4 + 2)
    assert isinstance(opt, torch.optim.Adam)
    assert opt.param_groups[0]["lr"] == 2e-3
    assert loss is nn.BCELoss
    assert input_mask is None


@pytest.mark.parametrize(
    ("opt_args", "expected", "lr"),
    [
        (None, torch.optim.Adam, 2e-3),
        ({"weight_decay": 0.1}, torch.optim.AdamW, 2e-3),
        ({"OPT": "SGD", "lr": 0.5, "momentum": 0.9}, torch.optim.SGD, 0.5),
        ({"opt": torch.optim.Adagrad}, torch.optim.Adagrad, 2e-3),
    ],
)
def test_optimisers(opt_args, expected, lr):
    found = model(opt_args=opt_args)
    assert type(found.opt) is expected
    assert found.get_lr() == lr


def test_adam_with_weight_decay_warns():
    with pytest.warns(UserWarning, match="'adamw' decays them as such"):
        builder(opt_args={"opt": "adam", "weight_decay": 0.1})


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"objective": "clasification"}, "`objective` must be one of .*'multiclass'.*Did you mean 'classification'"),
        ({"n_out": 0}, "`n_out` must be a whole number"),
        ({"opt_args": {"opt": "adamm"}}, r"`opt` must be one of 'adam', .*Did you mean 'adam'\?"),
        ({"opt_args": {"momentum": 0.9}}, "`opt_args` do not fit the optimiser Adam"),
        ({"model_args": {"boddy": {}}}, r"`model_args` must have the keys 'head', 'body', 'tail'.*Did you mean 'body'"),
        ({"model_args": {"body": {"depth": 2, "witdh": 3}}}, r"got 'witdh'. Did you mean 'width'\?"),
        ({"loss": "maee"}, r"`loss` must be one of 'auto', 'mse', .*Did you mean 'mae'\?"),
        ({"loss": WeightedMAE()}, "`loss` must be a class"),
        ({"cont_feats": ["a", "a"]}, "`cont_feats` must name every feature once"),
        ({"cont_subsample_rate": 1.5}, "`cont_subsample_rate` must lie in"),
        ({"cont_subsample_rate": 0.5, "guaranteed_feats": ["x"]}, "`guaranteed_feats` must be among `cont_feats`"),
        ({"cont_subsample_rate": 0.25, "guaranteed_feats": ["a", "b"]}, "`guaranteed_feats` must be at most the 1"),
    ],
)
def test_what_cannot_be_built_is_refused_with_names(settings, message):
    body = {"depth": 1, "width": 4}
    settings = {"objective": "regression", "n_out": 1, "cont_feats": FEATS, "model_args": {"body": body}, **settings}
    with pytest.raises(InputError, match=message):
        ModelBuilder(**settings).get_model()


def test_seeds_fix_weights_and_leave_the_global_generator_alone():
    torch.manual_seed(5)
    expected = torch.rand(2)
    torch.manual_seed(5)
    first = bits(Model(builder(seed=3)))
    assert torch.equal(torch.rand(2), expected)
    assert bits(Model(builder(seed=3))) == first
    assert bits(Model(builder(seed=1), seed=3)) == first
    assert bits(Model(builder(seed=4))) != first


def test_frozen_parts_do_not_train():
    fitted = Model(builder(freeze_body=True))
    before = bits(fitted)
    assert fitted.get_param_count() == sum(p.numel() for p in fitted.tail.parameters())
    fitted.fit(1, data(), 30, seed=0)
    after = bits(fitted)
    changed = {key.split(".")[0] for key in before if before[key] != after[key]}
    assert changed == {"2"}


# ------------------------------------------------------------------------------------------------------ feature choice
def test_features_are_subsampled_by_seed_without_embedder_and_without_touching_arguments():
    """The original needed an embedder, changed the caller's list, and seeded NumPy from entropy."""
    guaranteed = ["d"]
    names = [f"f{k}" for k in range(9)] + ["d"]

    def masks(seed):
        described = ModelBuilder(
            "regression",
            1,
            names,
            {"body": {"depth": 1, "width": 4}},
            cont_subsample_rate=0.3,
            guaranteed_feats=guaranteed,
            seed=seed,
        )
        found = Model(described)
        assert found.head.n_cont_in == 3
        assert found.input_mask == sorted(found.input_mask)
        return tuple(found.input_mask)

    np.random.seed(0)  # noqa: NPY002
    found = {masks(seed) for seed in range(20)}
    drawn = np.random.rand()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    assert np.random.rand() == drawn  # noqa: NPY002
    assert guaranteed == ["d"]
    assert all(9 in mask and len(mask) == 3 for mask in found)
    assert len(found) > 5
    assert masks(7) == masks(7)


def test_a_subsampled_model_sees_its_columns_and_the_categories_everywhere():
    described = builder(
        "regression", cont_subsample_rate=0.5, cat_embedder=CatEmbedder(["jets"], [3]), opt_args={"lr": 0.01}
    )
    found = Model(described)
    assert found.input_mask[-1] == 4
    rng = np.random.default_rng(0)
    x = np.column_stack([rng.normal(size=(20, 4)), rng.integers(0, 3, 20)])
    seen = x[:, found.input_mask]
    other = x.copy()
    hidden = [k for k in range(5) if k not in found.input_mask]
    other[:, hidden] = 99.0
    assert np.array_equal(found.predict(x), found.predict(other))
    direct = found.net(torch.from_numpy(seen).float()).detach().numpy()
    np.testing.assert_allclose(found.predict(x), direct, rtol=1e-6)
    assert found.evaluate(x, x[:, 0]) == found.evaluate(other, x[:, 0])
    with pytest.raises(InputError, match="`inputs` must have at least 5 flat features; got shape"):
        found.predict(seen)


# ---------------------------------------------------------------------------------------------------- further training
def test_from_model_builder_keeps_optimiser_loss_and_lookups():
    """The original fell back to Adam with its default rate."""
    first = builder("regression", opt_args={"opt": "sgd", "lr": 0.5}, loss=WeightedMAE, lookup_init=lookup_uniform_init)
    second = ModelBuilder.from_model_builder(first, freeze_head=True, freeze_body=True)
    assert second.opt_args == first.opt_args
    assert second.loss is WeightedMAE
    assert second.lookup_init is lookup_uniform_init
    found = Model(second)
    assert type(found.opt) is torch.optim.SGD
    assert found.get_lr() == 0.5
    assert not any(p.requires_grad for p in found.body.parameters())
    third = ModelBuilder.from_model_builder(second, loss="mse", opt_args={"lr": 0.1})
    assert third.loss is WeightedMSE
    assert Model(third).get_lr() == 0.1
    assert not third.freeze_body


def test_pretrained_weights_are_loaded_and_checked_key_by_key(tmp_path):
    first = model("regression")
    first.save(tmp_path / "first.h5")
    again = ModelBuilder.from_model_builder(builder("regression", seed=9), pretrain_file=tmp_path / "first.h5")
    assert bits(Model(again)) == bits(first)
    wide = ModelBuilder.from_model_builder(builder("regression", width=5), pretrain_file=tmp_path / "first.h5")
    with pytest.raises(CheckpointError, match=r"misshaped '2.dense.weight': expected shape \(1, 5\), got \(1, 12\)"):
        Model(wide)


def test_get_out_size():
    assert builder("multiclass").get_out_size() == 3


# --------------------------------------------------------------------------------------------------------------- files
class OwnBody(FullyConnected):
    """A body that the library does not know."""


def test_a_description_comes_back_from_its_file(tmp_path):
    first = ModelBuilder(
        "regression",
        2,
        FEATS,
        {
            "head": {"do_cont": 0.1},
            "body": {
                "blocks": [partial(FullyConnected, depth=1, width=4), partial(FullyConnected, depth=2, width=3)],
                "feats_per_block": [["a", "b"], ["c", "jets"]],
                "bottleneck_sz": 2,
            },
            "tail": {"y_range": np.array([[0.0, 1.0], [-2.0, 2.0]])},
        },
        {"opt": "adamw", "lr": 0.01, "betas": (0.8, 0.99)},
        cat_embedder=CatEmbedder(["jets"], [5]),
        loss=WeightedMAE,
        body=MultiBlock,
        lookup_init=lookup_uniform_init,
        seed=4,
    )
    first.save(tmp_path / "builder.json")
    second = ModelBuilder.load(tmp_path / "builder.json")
    assert bits(Model(second)) == bits(Model(first))
    assert second.opt_args == first.opt_args
    assert second.loss is WeightedMAE
    assert second.head is CatEmbHead
    assert ModelBuilder.from_model_builder(tmp_path / "builder.json").body is MultiBlock


def test_two_classes_of_one_name_are_told_apart(tmp_path):
    from diffdet.nn.models.blocks import gnn_blocks, head

    for k, kind in enumerate((head.InteractionNet, gnn_blocks.InteractionNet)):
        path = tmp_path / f"{k}.json"
        builder(model_args={"head": {"extractor": kind}}).save(path)
        assert ModelBuilder.load(path).model_args["head"]["extractor"] is kind


def test_own_classes_are_handed_in_never_imported(tmp_path):
    path = tmp_path / "builder.json"
    ModelBuilder("regression", 1, FEATS, {"body": {"depth": 1, "width": 4}}, body=OwnBody).save(path)
    with pytest.raises(CheckpointError, match="names 'OwnBody', which is no class of the library"):
        ModelBuilder.load(path)
    assert ModelBuilder.load(path, {"OwnBody": OwnBody}).body is OwnBody


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(format="other"), "must hold the description of a network"),
        (lambda d: d["builder"].update(body={"$name": "os.system"}), "names 'os.system', which is no class"),
        (lambda d: d["builder"].update(extra=1), r"holds arguments that no network has: \['extra'\]"),
        (lambda d: d["builder"].update(body={"$run": "x"}), "unknown kind '\\$run'"),
        (lambda d: d.update(format_version=99), "format 99"),
    ],
)
def test_files_that_are_no_descriptions_are_refused(tmp_path, change, message):
    path = tmp_path / "builder.json"
    builder().save(path)
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    with pytest.raises(CheckpointError, match=message):
        ModelBuilder.load(path)


def test_what_cannot_be_written_as_names_and_numbers_is_refused(tmp_path):
    with pytest.raises(InputError, match="must be a class or function with a name"):
        builder(lookup_init=lambda act, fan_in=None, fan_out=None: lambda w: w).save(tmp_path / "b.json")
    with pytest.raises(InputError, match="must consist of numbers, names and classes"):
        builder(opt_args={"lr": torch.nn.Linear(1, 1)}).save(tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()
