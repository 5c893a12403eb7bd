"""The forty sensors: numbers, names, identifiers, geometry."""

from __future__ import annotations

import json
import math

import pytest
import torch

from diffdet.core.errors import InputError
from diffdet.core.units import mm, um
from diffdet.overlay.sensors import PXD, pack_vxdid, unpack_vxdid


@pytest.fixture(scope="module")
def table(shared_dir):
    return json.loads((shared_dir / "spec" / "pxd-state-dicts.json").read_text())


def test_forty_identifiers_and_names_are_those_of_the_table(table):
    assert [(s.index, s.name, s.layer, s.ladder, s.sensor, s.vxdid) for s in PXD] == [
        tuple(row[key] for key in ("index", "name", "layer", "ladder", "sensor", "vxdid")) for row in table["sensors"]
    ]
    assert list(PXD.names) == table["class_orders"]["numeric"]
    assert list(PXD.lexicographic_names) == table["class_orders"]["lexicographic"]


def test_geometry_is_that_of_the_table(table):
    for sensor, row in zip(PXD, table["sensors"], strict=True):
        assert math.degrees(sensor.azimuth) == pytest.approx(row["phi_deg"])
        assert sensor.radius / mm == pytest.approx(row["active_radius_mm"])
        assert [sensor.low_z / mm, sensor.high_z / mm] == pytest.approx(row["active_z_mm"])
        assert sensor.u_pitch / um == pytest.approx(row["u_pitch_um"])
        assert [[n, round(pitch / um, 6)] for n, pitch in sensor.v_segments] == row["v_segments_cells_pitch_um"]
        assert (sensor.n_u, sensor.n_v) == (250, 768)


def test_index_formula():
    for sensor in PXD:
        base = 0 if sensor.layer == 1 else 16
        assert sensor.index == base + 2 * (sensor.ladder - 1) + sensor.sensor - 1
        assert PXD.index_of(sensor.layer, sensor.ladder, sensor.sensor) == sensor.index
        assert PXD.by_name(sensor.name) is sensor
        assert unpack_vxdid(sensor.vxdid) == (sensor.layer, sensor.ladder, sensor.sensor, 0)


def test_a_segment_in_the_identifier_is_ignored():
    vxdids = torch.tensor([s.vxdid | 0x13 for s in PXD], dtype=torch.uint16)
    assert PXD.indices_of_vxdids(vxdids).tolist() == list(range(40))
    assert PXD.by_vxdid(8480 | 0x1F).name == "1.1.1"


def test_unknown_identifiers_are_minus_one():
    strange = torch.tensor([0, 8480 + 96, pack_vxdid(1, 9, 1), pack_vxdid(3, 1, 1), 65535, 1 << 20, -1])
    assert PXD.indices_of_vxdids(strange).tolist() == [-1] * 7
    with pytest.raises(InputError, match="`vxdid`"):
        PXD.by_vxdid(pack_vxdid(1, 9, 1))


@pytest.mark.parametrize("numbers", [(8, 1, 1), (1, 32, 1), (1, 1, 8), (1, 1, 1, 32), (-1, 1, 1)])
def test_numbers_that_do_not_fit_their_bits_are_refused(numbers):
    with pytest.raises(InputError, match=r"must lie in"):
        pack_vxdid(*numbers)


def test_a_misspelt_name_is_refused_with_the_nearest():
    with pytest.raises(InputError, match=r"`name`.*'2\.13\.2'.*Did you mean"):
        PXD.by_name("2.13.2")


def test_small_cells_lie_at_the_glue_and_pitches_add_up():
    forward, backward = PXD[16], PXD[17]
    assert forward.v_pitch(0) == pytest.approx(70 * um)
    assert forward.v_pitch(255) == pytest.approx(70 * um)
    assert forward.v_pitch(256) == pytest.approx(85 * um)
    assert backward.v_pitch(511) == pytest.approx(85 * um)
    assert backward.v_pitch(512) == pytest.approx(70 * um)
    for sensor in PXD:
        edges = sensor.v_edges
        assert edges[-1] - edges[0] == pytest.approx(sensor.length)
        assert edges[sensor.v_border] - edges[sensor.v_border - 1] == pytest.approx(sensor.v_pitch(sensor.v_border - 1))
        assert -edges[0] == pytest.approx(edges[-1])
    assert PXD.v_edges(dtype=torch.float64).shape == (40, 769)
    assert PXD.u_edges()[0, -1].item() == pytest.approx(6.25 * mm)


def test_local_and_global_frames():
    for sensor in PXD:
        origin = torch.tensor(sensor.to_global(0, 0, 0), dtype=torch.float64)
        axes = [
            torch.tensor(sensor.to_global(*unit), dtype=torch.float64) - origin
            for unit in ((1, 0, 0), (0, 1, 0), (0, 0, 1))
        ]
        torch.testing.assert_close(torch.linalg.cross(axes[0], axes[1]), axes[2])
        assert axes[1].tolist() == pytest.approx([0, 0, 1])
        phi = math.atan2(float(axes[2][1]), float(axes[2][0]))
        assert math.remainder(phi - sensor.azimuth, 2 * math.pi) == pytest.approx(0, abs=1e-12)
        point = (1.0 * mm, -2.0 * mm, 10 * um)
        assert sensor.to_local(*sensor.to_global(*point)) == pytest.approx(point)


def test_the_first_ladder_is_shifted_towards_rising_azimuth():
    x, y, z = PXD[0].to_global(0, 0)
    assert (x / mm, y / mm) == pytest.approx((13.985, 2.65))
    assert z / mm == pytest.approx(0.5 * (14.4255 + 59.2255))
