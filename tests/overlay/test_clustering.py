"""Clusters of digits: corners touch, sensors and events do not."""

from __future__ import annotations

import torch

from diffdet.overlay.clustering import find_clusters
from diffdet.overlay.digits import Digits


def digits(*rows):
    """Digits of rows of event, sensor, u, v and charge."""
    return Digits.from_columns(*torch.tensor(rows).T.contiguous())


def test_pixels_touch_at_edges_and_corners_only():
    found = find_clusters(digits((0, 0, 10, 10, 20), (0, 0, 11, 11, 30), (0, 0, 12, 11, 9), (0, 0, 14, 11, 7)))
    assert sorted(found.size.tolist()) == [1, 3]
    large = found.size.argmax()
    assert (found.charge[large], found.seed[large]) == (59, 30)
    assert (found.size_u[large], found.size_v[large]) == (3, 2)


def test_neither_events_nor_sensors_nor_ends_of_lines_touch():
    rows = [(0, 0, 249, 767, 9), (0, 1, 0, 0, 9), (1, 0, 249, 767, 9), (0, 0, 0, 766, 9), (0, 39, 249, 767, 9)]
    assert len(find_clusters(digits(*rows))) == 5


def test_every_digit_belongs_to_one_cluster_of_its_sensor():
    generator = torch.Generator().manual_seed(0)
    cells = torch.randperm(40 * 60, generator=generator)[:600]
    rows = torch.stack((cells % 2, cells // 2 % 3, 100 + cells // 6 % 20, 300 + cells // 120, 7 + cells % 50))
    some = Digits.from_columns(*rows)
    found = find_clusters(some)
    assert int(found.size.sum()) == len(some)
    assert torch.equal(found.sensor[found.label], some.sensor.to(torch.int64))
    assert torch.equal(found.event[found.label], some.event)


def test_no_digits_have_no_clusters():
    assert len(find_clusters(Digits.empty([0, 1]))) == 0
