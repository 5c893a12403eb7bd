"""Continuous columns and embeddings: codes, dropout of each, saving and loading by name, pictures."""

from __future__ import annotations

import math

import pytest
import torch

from diffdet.core.errors import CheckpointError, InputError, ShapeError, StorageError
from diffdet.nn.models.blocks.head import CatEmbHead
from diffdet.nn.models.helpers import CatEmbedder
from diffdet.nn.plotting.plot_settings import PlotSettings
from nn.some_heads import cat_head, embedder


def rows(*codes):
    """Input with two continuous columns and the codes given."""
    return torch.tensor([[0.5, -1.0, *code] for code in codes])


def test_continuous_columns_come_first_then_the_embeddings():
    head = cat_head()
    found = head(rows((2, 0), (3, 2)))
    assert head.get_out_size() == 2 + 2 + 2
    assert head.feat_map == {"met": [0], "ht": [1], "colour": [2, 3], "shape": [4, 5]}
    assert torch.equal(found[:, :2], rows((0, 0), (0, 0))[:, :2])
    assert torch.equal(found[:, 2:4], head.embeds[0].weight[[2, 3]])
    assert torch.equal(found[:, 4:], head.embeds[1].weight[[0, 2]])


def test_either_kind_of_column_may_be_left_out():
    x = torch.randn(3, 2)
    assert torch.equal(CatEmbHead(["met", "ht"])(x), x)
    only = CatEmbHead([], cat_embedder=embedder())
    assert torch.equal(only(torch.zeros(1, 2)), torch.cat([e.weight[:1] for e in only.embeds], 1))
    with pytest.raises(InputError, match="no feature"):
        CatEmbHead([])


def test_codes_are_truncated_towards_zero():
    head = cat_head()
    assert torch.equal(head(rows((1.9, -0.5))), head(rows((1, 0))))


@pytest.mark.parametrize("bad", [4.0, -1.0, math.nan, math.inf, -math.inf])
def test_codes_that_no_embedding_has_are_refused_by_name(bad):
    with pytest.raises(InputError, match=r"codes from 0 to 3 for categorical feature 'colour'; got .* in row 1 \(1"):
        cat_head()(rows((1, 2), (bad, 0)))
    with pytest.raises(InputError, match="codes from 0 to 2 for categorical feature 'shape'"):
        cat_head()(rows((3, 3)))


def test_dropout_acts_on_the_columns_that_it_names():
    x = rows(*[(1, 1)] * 2000)
    for arguments, wanted in (({"do_cat": 0.9}, (0, 0.9)), ({"do_cont": 0.3}, (0.3, 0))):
        head = cat_head(**arguments).train()
        found = head(x) == 0
        shares = found[:, :2].double().mean().item(), found[:, 2:].double().mean().item()
        assert shares == pytest.approx(wanted, abs=0.03)
        assert not (head.eval()(x) == 0).any()


def test_gradients_reach_used_embeddings_only():
    head = cat_head()
    head(rows((2, 0))).sum().backward()
    assert head.embeds[0].weight.grad.abs().sum(1).nonzero().flatten().tolist() == [2]


def test_freezing_freezes_everything():
    head = cat_head(freeze=True)
    assert not any(p.requires_grad for p in head.parameters())
    assert head.get_param_count() == 0
    assert head.get_param_count(trainable=False) == 4 * 2 + 3 * 2


def test_embeddings_are_saved_and_loaded_by_name(tmp_path):
    saved = cat_head()
    saved.save_embeds(tmp_path / "new" / "folder")
    assert sorted(p.name for p in (tmp_path / "new" / "folder").iterdir()) == ["colour.h5", "shape.h5"]
    turned = CatEmbedder(["shape", "colour"], [3, 4], emb_load_path=tmp_path / "new" / "folder")
    loaded = CatEmbHead(["met"], cat_embedder=turned)
    assert torch.equal(loaded.embeds[0].weight, saved.embeds[1].weight)
    assert torch.equal(loaded.embeds[1].weight, saved.embeds[0].weight)
    assert loaded.get_embeds().keys() == {"shape", "colour"}
    assert torch.equal(loaded.get_embeds()["colour"]["weight"], saved.embeds[0].weight)


def test_files_of_other_shape_missing_or_damaged_are_refused(tmp_path):
    cat_head().save_embeds(tmp_path)
    other = CatEmbHead([], cat_embedder=CatEmbedder(["colour", "shape"], [5, 3]))
    with pytest.raises(CheckpointError, match=r"'colour': expected \(5, 3\), found \(4, 2\)"):
        other.load_embeds(tmp_path)
    with pytest.raises(StorageError, match="no embedding of 'form'"):
        CatEmbHead([], cat_embedder=CatEmbedder(["form"], [5])).load_embeds(tmp_path)
    (tmp_path / "shape.h5").write_bytes(b"damaged")
    with pytest.raises(StorageError, match="'shape'"):
        cat_head().load_embeds(tmp_path)
    torch.save(torch.nn.Embedding(4, 2), tmp_path / "colour.h5")  # a pickled object, which could run code
    with pytest.raises(StorageError, match="'colour'"):
        cat_head().load_embeds(tmp_path)


def test_names_that_lead_elsewhere_are_refused(tmp_path):
    head = CatEmbHead([], cat_embedder=CatEmbedder(["../colour"], [4]))
    for call in (head.save_embeds, head.load_embeds):
        with pytest.raises(InputError, match="plain file name"):
            call(tmp_path)


def test_input_that_does_not_fit_is_refused():
    with pytest.raises(ShapeError, match=r"\(batch, 4\), one column for each of met, ht, colour, shape"):
        cat_head()(torch.zeros(2, 5))
    with pytest.raises(InputError, match="share names: met"):
        CatEmbHead(["met"], cat_embedder=CatEmbedder(["met"], [3]))
    for wrong in ({"do_cont": 1.0}, {"do_cat": -0.1}):
        with pytest.raises(InputError, match="`do_c"):
            cat_head(**wrong)


def test_every_embedding_gets_a_picture_of_its_own(tmp_path):
    settings = PlotSettings(savepath=tmp_path, format=".png")
    head = cat_head()
    head.plot_embeds("weights", settings)
    pictures = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    assert set(pictures) == {"weights_colour.png", "weights_shape.png"}
    assert all(data.startswith(b"\x89PNG") for data in pictures.values())
    head.plot_embeds(settings=settings)  # nothing to save
    assert len(list(tmp_path.iterdir())) == 2


def test_of_a_tuple_the_flat_part_is_taken():
    x = rows((1, 2))
    assert torch.equal(cat_head_twice(x), cat_head_twice((x, torch.zeros(1, 3, 3))))


def cat_head_twice(x):
    torch.manual_seed(0)
    return cat_head()(x)
