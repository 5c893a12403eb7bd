"""Trees of pictures."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from diffdet.core.errors import FileDamagedError, StorageError
from diffdet.overlay.digits import Digits
from diffdet.overlay.io.pictures import export_pictures
from diffdet.overlay.io.source import open_events


@pytest.fixture(scope="module")
def digits():
    n = 500
    generator = torch.Generator().manual_seed(2)
    pixel = torch.randperm(2 * 40 * 192_000, generator=generator)[:n]
    event, rest = pixel // (40 * 192_000), pixel % (40 * 192_000)
    charge = torch.randint(1, 256, (n,), generator=generator)
    return Digits.from_columns(event, rest // 192_000, rest % 250, rest // 250 % 768, charge, numbers=[9, 10])


@pytest.fixture
def tree(digits, tmp_path):
    assert export_pictures(tmp_path / "tree", [digits.select(0, 1), digits.select(1, 2)]) == 2
    return tmp_path / "tree"


def test_pictures_come_back_in_the_order_of_numbers(tree, digits):
    source = open_events(tree)
    assert source.n_events == 2
    assert Digits.concatenate(source.blocks(1)).equal(digits)


def test_pictures_are_grey_768_wide_and_250_high(tree, digits):
    with Image.open(tree / "2.10.1" / "9.png") as picture:
        assert picture.size == (768, 250)
        assert picture.mode == "L"
        pixels = np.asarray(picture)
    assert np.array_equal(pixels, digits.to_images()[0, 34].numpy())


def test_pictures_that_do_not_fit_are_named(tree):
    Image.new("L", (768, 256)).save(tree / "1.1.1" / "9.png")
    with pytest.raises(FileDamagedError, match=r"9\.png.*768 x 256"):
        open_events(tree).read()
    (tree / "1.1.1" / "9.png").write_bytes(b"no picture")
    with pytest.raises(FileDamagedError, match=r"9\.png"):
        open_events(tree).read()


def test_absent_folders_and_pictures_are_counted(tree):
    (tree / "1.1.1" / "9.png").unlink()
    with pytest.raises(StorageError, match="1 events lack some"):
        open_events(tree)
    (tree / "1.1.1" / "10.png").unlink()
    (tree / "1.1.1").rmdir()
    with pytest.raises(StorageError, match=r"1 are absent: 1\.1\.1"):
        open_events(tree)
