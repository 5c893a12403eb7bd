"""Overlay files of Belle II's software, read with uproot: look-alikes, and files with every kind of fault."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from diffdet.core.errors import FileDamagedError, NotSupportedError, StorageError
from diffdet.overlay.digits import Digits
from diffdet.overlay.io.overlay_root import OverlaySource, holds_overlay
from diffdet.overlay.io.source import open_events
from diffdet.overlay.sensors import PXD

uproot = pytest.importorskip("uproot")
ak = pytest.importorskip("awkward")

FILES = Path(__file__).resolve().parents[1] / "files"


def test_a_split_array_of_objects_is_read():
    source = open_events(FILES / "pxd_lookalike_split99.root")
    assert isinstance(source, OverlaySource)
    digits = Digits.concatenate(source.blocks(6))
    assert digits.n_events == 20
    with uproot.open(FILES / "pxd_lookalike_split99.root") as file:
        members = {
            name: file["tree"][f"PXDDigits/PXDDigits.{name}"].array()
            for name in ("m_sensorID", "m_uCellID", "m_vCellID", "m_charge")
        }
    for event in range(20):
        # the slow way, digit by digit
        expected: dict[tuple[int, int, int], int] = {}
        for sensor, u, v, charge in zip(*(column[event].to_list() for column in members.values()), strict=True):
            index = {s.vxdid: s.index for s in PXD}.get(sensor & 0xFFE0)
            if index is not None and u < 250 and v < 768 and charge > 0:
                expected[index, u, v] = expected.get((index, u, v), 0) + charge
        found = digits.select(event, event + 1)
        rows = zip(*(getattr(found, n).tolist() for n in ("sensor", "u", "v", "charge")), strict=True)
        assert {(s, u, v): q for s, u, v, q in rows} == {key: min(q, 255) for key, q in expected.items()}
    total = sum(len(column) for column in members["m_charge"])
    counts = source.counts
    assert counts.kept + counts.unknown_sensor + counts.outside + counts.empty + counts.merged == total


def test_an_unsplit_array_is_reported():
    with pytest.raises(NotSupportedError, match=r"unsplit.*split level 99"):
        open_events(FILES / "pxd_lookalike_split0.root")


def overlay_file(path, *, array="PXDDigits", members=None, dtypes=None, extra=None, persistent=None):
    members = members or {
        "m_sensorID": [[8480, 8480 | 5, 8480, 1, 8512], []],
        "m_uCellID": [[1, 1, 250, 3, 4], []],
        "m_vCellID": [[2, 2, 3, 4, 767], []],
        "m_charge": [[9, 250, 9, 9, 30], []],
    }
    dtypes = dtypes or {}
    with uproot.recreate(path) as file:
        columns = {
            f"{array}.{name}": ak.values_astype(ak.Array(lists), dtypes.get(name, "uint16"))
            for name, lists in members.items()
        }
        columns |= extra or {}
        file.mktree("tree", {name: ak.type(column).content for name, column in columns.items()}).extend(columns)
        file.mktree("persistent", persistent or {"FileMetaData": "int32"})
    return path


def test_faults_are_counted_and_mended(tmp_path):
    source = open_events(overlay_file(tmp_path / "o.root", array="PXDDigits_beamBG"))
    digits = source.read()
    assert source.counts.problems == {"unknown_sensor": 1, "outside": 1, "clipped": 1, "merged": 1}
    assert digits.n_events == 2
    assert [digits.sensor.tolist(), digits.u.tolist(), digits.v.tolist(), digits.charge.tolist()] == [
        [0, 1], [1, 4], [2, 767], [255, 30],
    ]  # fmt: skip


def test_numbers_of_old_versions_of_the_class_are_read_whatever_their_type(tmp_path):
    plain = open_events(overlay_file(tmp_path / "new.root")).read()
    dtypes = {"m_charge": "float32", "m_uCellID": "int16", "m_vCellID": "int16", "m_sensorID": "int32"}
    assert open_events(overlay_file(tmp_path / "old.root", dtypes=dtypes)).read().equal(plain)


def test_numbers_of_events_are_those_of_the_file(tmp_path):
    path = overlay_file(tmp_path / "o.root", extra={"EventMetaData.m_event": np.array([12, 7], np.uint32)})
    assert open_events(path).read().numbers.tolist() == [12, 7]
    assert open_events(overlay_file(tmp_path / "p.root")).read().numbers.tolist() == [0, 1]


def test_files_for_mixing_are_refused(tmp_path):
    path = overlay_file(tmp_path / "m.root", persistent={"BackgroundMetaData": "int32"})
    with pytest.raises(NotSupportedError, match="BackgroundMetaData"):
        open_events(path)


def test_missing_members_and_arrays_are_named(tmp_path):
    members = {"m_sensorID": [[8480]], "m_uCellID": [[1]], "m_charge": [[9]]}
    with pytest.raises(StorageError, match=r"PXDDigits\.m_vCellID"):
        open_events(overlay_file(tmp_path / "a.root", members=members))
    with pytest.raises(StorageError, match="one array of digits"):
        open_events(overlay_file(tmp_path / "b.root", array="SVDDigits"))
    with pytest.raises(StorageError, match="'PXDDigits_x'"):
        OverlaySource(overlay_file(tmp_path / "c.root"), "PXDDigits_x")
    with uproot.recreate(tmp_path / "d.root") as file:
        file.mktree("persistent", {"FileMetaData": "int32"})
    with pytest.raises(StorageError, match="TTree `tree`"):
        open_events(tmp_path / "d.root")


def test_members_that_differ_in_number_are_damage(tmp_path):
    members = {"m_sensorID": [[8480]], "m_uCellID": [[1]], "m_vCellID": [[1, 2]], "m_charge": [[9]]}
    source = open_events(overlay_file(tmp_path / "a.root", members=members))
    with pytest.raises(FileDamagedError, match="differ in number"):
        source.read()


def test_truncated_files_are_refused(tmp_path):
    whole = (FILES / "pxd_lookalike_split99.root").read_bytes()
    path = tmp_path / "t.root"
    for share in (0.01, 0.5, 0.98):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(StorageError, match=r"t\.root"):
            open_events(path).read()


def test_our_own_files_are_not_taken_for_overlay(tmp_path):
    from diffdet.overlay.io.neutral import digits_writer

    with digits_writer(tmp_path / "n.root") as file:
        file.write(Digits.empty([1]))
    assert not holds_overlay(tmp_path / "n.root")
    assert torch.equal(open_events(tmp_path / "n.root").read().numbers, torch.tensor([1]))
