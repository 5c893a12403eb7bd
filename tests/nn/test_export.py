"""Models as ONNX and as programs, with any batch size."""

from __future__ import annotations

from functools import partial

import numpy as np
import pytest
import torch

from diffdet.core.errors import InputError
from diffdet.nn.models.blocks.head import InteractionNet, MultiHead
from diffdet.nn.models.helpers import CatEmbedder
from diffdet.nn.models.model import Model
from diffdet.nn.models.model_builder import ModelBuilder
from nn.tiny import builder

TOLERANCE = 1e-5


def run(path, inputs):
    """What onnxruntime gives."""
    runtime = pytest.importorskip("onnxruntime")
    session = runtime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(None, inputs)[0]


@pytest.mark.slow
def test_flat_models_with_and_without_categories(tmp_path):
    pytest.importorskip("onnxscript")
    for name, embedder in (("plain", None), ("categories", CatEmbedder(["jets"], [4]))):
        found = Model(builder("multiclass", cat_embedder=embedder))
        path = found.export2onnx(tmp_path / name, bs=1)
        assert path == tmp_path / f"{name}.onnx"
        rng = np.random.default_rng(0)
        for bs in (1, 7, 64):
            x = rng.normal(size=(bs, 4)).astype(np.float32)
            if embedder is not None:
                x = np.column_stack([x, rng.integers(0, 4, bs).astype(np.float32)])
            np.testing.assert_allclose(np.exp(run(path, {"x": x})), found.predict(x), atol=TOLERANCE)


OBJECTS = {"vecs": ["j1", "j2", "j3"], "feats_per_vec": ["px", "py"]}


def objects_model(head, feats, args):
    names = [f"{vec}_{feat}" for vec in OBJECTS["vecs"] for feat in OBJECTS["feats_per_vec"]]
    described = ModelBuilder(
        "regression", 1, [*feats, *names], {"head": args, "body": {"depth": 1, "width": 5}}, head=head
    )
    return Model(described, seed=0)


INTERACTION = {
    **OBJECTS,
    "intfunc_depth": 1,
    "intfunc_width": 4,
    "intfunc_out_sz": 3,
    "outfunc_depth": 1,
    "outfunc_width": 4,
    "outfunc_out_sz": 3,
    "agg_method": "sum",
}


@pytest.mark.slow
def test_objects_with_a_mask(tmp_path):
    pytest.importorskip("onnxscript")
    found = objects_model(InteractionNet, [], INTERACTION)
    rng = np.random.default_rng(0)
    path = found.export_to_onnx(tmp_path / "masked", mask=True)
    for bs in (1, 7, 64):
        x = rng.normal(size=(bs, 6)).astype(np.float32)
        mask = rng.random((bs, 3)) < 0.6
        np.testing.assert_allclose(run(path, {"x": x, "mask": mask}), found.predict(x, mask=mask), atol=TOLERANCE)


@pytest.mark.slow
def test_programs_take_any_batch(tmp_path):
    found = Model(builder())
    program = found.export()
    for bs in (1, 7, 64):
        x = torch.randn(bs, 4, generator=torch.Generator().manual_seed(bs))
        torch.testing.assert_close(program.module()(x), found.predict(x, as_np=False))
    torch.export.save(program, tmp_path / "program.pt2")
    again = torch.export.load(tmp_path / "program.pt2")
    torch.testing.assert_close(again.module()(x), found.predict(x, as_np=False))


def test_a_subsampled_model_is_exported_with_the_columns_that_it_sees():
    found = Model(builder(cont_subsample_rate=0.5))
    x, mask = found.example_inputs(3)
    assert x.shape == (3, 2)
    assert mask is None


def test_a_mask_needs_objects():
    with pytest.raises(InputError, match="`mask` needs a head with objects; CatEmbHead has none"):
        Model(builder()).export_to_onnx("never", mask=True)
    with pytest.raises(InputError, match="`inputs` must have at least 2 samples"):
        Model(builder()).export(inputs=np.zeros((1, 4)))
    with pytest.raises(InputError, match="`bs` must be at least 1"):
        Model(builder()).export2onnx("never", bs=0)


@pytest.mark.slow
def test_both_parts_of_a_pair_are_inputs(tmp_path):
    pytest.importorskip("onnxscript")
    found = objects_model(MultiHead, ["met", "ht"], {"matrix_head": partial(InteractionNet, **INTERACTION)})
    assert "2 cont, 6 matrix" in repr(found)
    rng = np.random.default_rng(0)
    pair = rng.normal(size=(3, 2)).astype(np.float32), rng.normal(size=(3, 2, 3)).astype(np.float32)
    path = found.export_to_onnx(tmp_path / "pair", mask=True, inputs=pair)
    flat, matrix = rng.normal(size=(7, 2)).astype(np.float32), rng.normal(size=(7, 2, 3)).astype(np.float32)
    mask = rng.random((7, 3)) < 0.6
    expected = found.predict((flat, matrix), mask=mask)
    np.testing.assert_allclose(run(path, {"flat": flat, "matrix": matrix, "mask": mask}), expected, atol=TOLERANCE)
    columns = np.column_stack([flat, matrix.transpose(0, 2, 1).reshape(7, 6)])
    np.testing.assert_allclose(found.predict(columns, mask=mask), expected, rtol=1e-5)
    path = found.export_to_onnx(tmp_path / "columns")
    np.testing.assert_allclose(run(path, {"x": columns}), found.predict(columns), atol=TOLERANCE)
