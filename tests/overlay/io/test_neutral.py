"""The neutral format: what is written comes back, from every kind of file, in blocks of any size."""

from __future__ import annotations

import json

import h5py
import numpy as np
import pytest
import torch

from diffdet.core.errors import FileDamagedError, InputError, StorageError, VersionError
from diffdet.overlay.digits import Digits
from diffdet.overlay.io.neutral import FORMAT, KINDS, digits_writer
from diffdet.overlay.io.source import open_events, read_events


def some_digits(n_events=7, mean=300, seed=3):
    generator = torch.Generator().manual_seed(seed)
    n = n_events * mean
    pixel = torch.randperm(n_events * 40 * 192_000, generator=generator)[:n]
    event, rest = pixel // (40 * 192_000), pixel % (40 * 192_000)
    event[event == 2] = 3  # one event is empty
    columns = (event, rest // 192_000, rest % 250, rest // 250 % 768, torch.randint(1, 256, (n,), generator=generator))
    keys = torch.stack(columns[:4]).unique(dim=1, return_inverse=True)[1]
    first = torch.zeros(len(keys.unique()), dtype=torch.int64).scatter_(0, keys, torch.arange(n))
    return Digits.from_columns(*(c[first] for c in columns), numbers=torch.arange(n_events) * 3 + 2**40)


@pytest.fixture(scope="module")
def digits():
    return some_digits()


def write(path, digits, kind, *, block=3, metadata=None):
    with digits_writer(path, metadata or {"source": "generated", "seed": 5}, kind=kind) as file:
        for start in range(0, digits.n_events, block):
            file.write(digits.select(start, min(start + block, digits.n_events)))


@pytest.fixture(params=list(KINDS))
def kind(request):
    return request.param


@pytest.mark.parametrize("block", [1, 4, 100])
def test_events_come_back(kind, block, digits, tmp_path):
    path = tmp_path / f"b{KINDS[kind]}"
    write(path, digits, kind)
    source = open_events(path)
    assert source.n_events == 7
    assert Digits.concatenate(source.blocks(block)).equal(digits)
    assert source.counts.kept == len(digits)
    assert read_events(path, limit=4).equal(digits.select(0, 4))
    assert {"source": "generated", "seed": 5, "format": FORMAT, "geometry": "PXD"}.items() <= source.metadata.items()
    assert len(source.metadata["sensors"]) == 40


def test_files_without_events_or_digits(kind, tmp_path):
    path = tmp_path / f"b{KINDS[kind]}"
    with digits_writer(path, kind=kind):
        pass
    assert open_events(path).n_events == 0
    assert read_events(path).n_events == 0
    with digits_writer(path, kind=kind) as file:
        file.write(Digits.empty([4, 5]))
    assert read_events(path).numbers.tolist() == [4, 5]


def test_what_was_there_stays_when_writing_fails(kind, digits, tmp_path):
    path = tmp_path / f"b{KINDS[kind]}"
    write(path, digits, kind)
    before = path.read_bytes()

    def half():
        with digits_writer(path, kind=kind) as file:
            file.write(digits)
            raise RuntimeError("power cut")

    with pytest.raises(RuntimeError, match="power cut"):
        half()
    assert path.read_bytes() == before
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_truncated_files_are_refused(kind, digits, tmp_path):
    path = tmp_path / f"b{KINDS[kind]}"
    write(path, digits, kind)
    whole = path.read_bytes()
    for share in (0.05, 0.5, 0.95):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(StorageError, match=str(path)):
            read_events(path)


@pytest.mark.parametrize("kind", ["parquet", "hdf5"])
def test_flipped_bits_are_noticed(kind, digits, tmp_path):
    path = tmp_path / f"b{KINDS[kind]}"
    write(path, digits, kind)
    whole = bytearray(path.read_bytes())
    noticed = 0
    places = torch.randint(0, len(whole), (40,), generator=torch.Generator().manual_seed(2)).tolist()
    for place in places:
        damaged = bytearray(whole)
        damaged[place] ^= 16
        path.write_bytes(bytes(damaged))
        try:
            found = read_events(path)
        except (StorageError, InputError, VersionError):
            noticed += 1
        else:
            # what is not noticed did no harm: padding, names, statistics
            assert found.equal(digits)
    assert noticed > 10  # HDF5 leaves much room between its parts


def test_a_file_of_a_newer_version_says_so(kind, digits, tmp_path, monkeypatch):
    path = tmp_path / f"b{KINDS[kind]}"
    monkeypatch.setattr("diffdet.overlay.io.neutral.VERSION", 2)
    write(path, digits, kind)
    monkeypatch.undo()
    with pytest.raises(VersionError, match="format version 2"):
        open_events(path)


def test_values_out_of_range_are_damage(tmp_path, digits):
    path = tmp_path / "b.h5"
    write(path, digits, "hdf5")
    with h5py.File(path, "r+") as file:
        file["sensor"][3] = 40
    with pytest.raises(FileDamagedError, match=r"`sensor` must lie in \[0, 39\]"):
        read_events(path)
    with h5py.File(path, "r+") as file:
        file["sensor"][3] = 39
        file["offset"][2] = 0
    with pytest.raises(FileDamagedError, match=r"offsets|repeat"):
        read_events(path)


def test_links_to_other_files_are_not_followed(tmp_path, digits):
    path, other = tmp_path / "b.h5", tmp_path / "other.h5"
    write(path, digits, "hdf5")
    write(other, digits, "hdf5")
    with h5py.File(path, "r+") as file:
        del file["charge"]
        file["charge"] = h5py.ExternalLink("other.h5", "charge")
    with pytest.raises(FileDamagedError, match="plain column 'charge'"):
        open_events(path)


def test_both_kinds_of_root_files_are_read_by_uproot_alone(tmp_path, digits):
    uproot = pytest.importorskip("uproot")
    for kind, name, prefix in (("ttree", "tree", "digits_"), ("rntuple", "events", "")):
        path = tmp_path / f"{kind}.root"
        write(path, digits, kind)
        with uproot.open(path) as file:
            events = file[name].arrays(["event", f"{prefix}vcell"])
            assert events["event"].to_list() == digits.numbers.tolist()
            assert sum(map(len, events[f"{prefix}vcell"].to_list()), 0) == len(digits)
            assert json.loads(str(file["metadata"]))["source"] == "generated"


def test_names_and_metadata_that_cannot_be_written_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"`path` must end in one of \.root"):
        digits_writer(tmp_path / "b.txt")
    with pytest.raises(InputError, match="`kind`"):
        digits_writer(tmp_path / "b.root", kind="tree")
    with pytest.raises(InputError, match="`metadata`"):
        digits_writer(tmp_path / "b.h5", {"seed": np.int64(3)})


def test_what_is_no_file_of_events_is_refused(tmp_path):
    with pytest.raises(StorageError, match="no file"):
        open_events(tmp_path / "none.root")
    text = tmp_path / "text.root"
    text.write_text("not a root file")
    with pytest.raises(StorageError, match="must be a ROOT, Parquet or HDF5 file"):
        open_events(text)
