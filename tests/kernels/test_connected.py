"""Connected components: known pictures, and a slow twin on random ones."""

from __future__ import annotations

import torch

from diffdet.kernels.connected import components, touching


def by_flooding(n, first, second):
    """Slow twin: relabel until nothing changes."""
    label = list(range(n))
    changed = True
    while changed:
        changed = False
        for a, b in zip(first.tolist(), second.tolist(), strict=True):
            low = min(label[a], label[b])
            changed |= label[a] != low or label[b] != low
            label[a] = label[b] = low
    return label


def test_components_are_those_of_flooding():
    generator = torch.Generator().manual_seed(5)
    for n, m in ((1, 0), (30, 12), (60, 60), (200, 150)):
        first = torch.randint(0, n, (m,), generator=generator)
        second = torch.randint(0, n, (m,), generator=generator)
        assert components(n, first, second).tolist() == by_flooding(n, first, second)


def test_a_long_chain_is_one_component():
    n = 5000
    assert components(n, torch.arange(n - 1), torch.arange(1, n)).tolist() == [0] * n


def test_pixels_at_the_two_ends_of_lines_do_not_touch():
    # width 4: pixel 3 is the end of line 0, pixel 4 the beginning of line 1
    key = torch.tensor([3, 4, 8])
    row = key % 4
    first, second = touching(key, row, 4, (0, 1))
    assert len(first) == len(second) == 0
    first, second = touching(key, row, 4, (1, 0))
    assert (first.tolist(), second.tolist()) == ([1], [2])


def test_no_pixels_have_no_pairs():
    none = torch.zeros(0, dtype=torch.int64)
    first, second = touching(none, none, 4, (0, 1))
    assert components(0, first, second).tolist() == []
