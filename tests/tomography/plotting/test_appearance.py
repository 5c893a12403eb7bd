"""Pictures are written whole, in the format asked for, and leave matplotlib as it was."""

from __future__ import annotations

import subprocess
import sys

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest

from diffdet.core.errors import InputError, StorageError
from diffdet.tomography.plotting import appearance


def test_documented_sizes():
    assert (appearance.TICK_SIZE, appearance.LABEL_SIZE, appearance.LEGEND_SIZE) == (16, 22, 16)
    assert appearance.H_MID == 8
    assert appearance.W_MID == pytest.approx(14.22, abs=0.005)


def test_style_applies_in_the_block_and_nowhere_else():
    before = dict(mpl.rcParams)
    with appearance.style(0.5):
        assert mpl.rcParams["axes.labelsize"] == 11
        assert mpl.rcParams["xtick.labelsize"] == 8
    assert dict(mpl.rcParams) == before


def linear(channel: float) -> float:
    return channel / 12.92 if channel <= 0.04045 else ((channel + 0.055) / 1.055) ** 2.4


# Linear-light RGB as seen without one kind of cone.
# Machado, Oliveira and Fernandes, IEEE TVCG 15 (2009) 1291, severity 1.
VISION = {
    "full": ((1, 0, 0), (0, 1, 0), (0, 0, 1)),
    "protanopia": ((0.152286, 1.052583, -0.204868), (0.114503, 0.786281, 0.099216), (-0.003882, -0.048116, 1.051998)),
    "deuteranopia": ((0.367322, 0.860646, -0.227968), (0.280085, 0.672501, 0.047413), (-0.011820, 0.042940, 0.968881)),
    "tritanopia": ((1.255528, -0.076749, -0.178779), (-0.078411, 0.930809, 0.147602), (0.004733, 0.691367, 0.303900)),
}


def lab(rgb: list[float]) -> list[float]:
    """CIE L*a*b* (D65) of linear-light RGB."""
    to_xyz = ((0.4124, 0.3576, 0.1805), (0.2126, 0.7152, 0.0722), (0.0193, 0.1192, 0.9505))
    white = (0.9505, 1.0, 1.089)
    f = []
    for row, w in zip(to_xyz, white, strict=True):
        t = sum(a * b for a, b in zip(row, rgb, strict=True)) / w
        f.append(t ** (1 / 3) if t > (6 / 29) ** 3 else t * (29 / 6) ** 2 / 3 + 4 / 29)
    return [116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])]


@pytest.mark.parametrize("vision", VISION)
def test_colours_used_beside_each_other_stay_apart_for_every_eye(vision):
    # 10 in CIE76 is about four just noticeable differences
    used = [appearance.PALETTE[name] for name in ("blue", "vermillion", "green", "orange", "black")]
    seen = []
    for colour in used:
        rgb = [linear(c) for c in mpl.colors.to_rgb(colour)]
        mixed = [sum(a * b for a, b in zip(row, rgb, strict=True)) for row in VISION[vision]]
        seen.append(lab([min(max(c, 0.0), 1.0) for c in mixed]))
    distances = {
        (i, j): sum((a - b) ** 2 for a, b in zip(seen[i], seen[j], strict=True)) ** 0.5
        for i in range(len(seen))
        for j in range(i)
    }
    assert min(distances.values()) > 10, distances


@pytest.mark.parametrize(
    ("name", "magic"), [("a.png", b"\x89PNG"), ("a.pdf", b"%PDF"), ("a.SVG", b"<?xml"), ("a", b"\x89PNG")]
)
def test_the_suffix_says_the_format(tmp_path, name, magic):
    figure = appearance.new_figure(2, 1)
    figure.subplots().plot([0, 1])
    appearance.present(figure, tmp_path / name)
    written = list(tmp_path.iterdir())
    assert [w.name for w in written] == [name if "." in name else "a.png"]
    assert written[0].read_bytes().startswith(magic)


def test_unknown_format_names_the_known_ones_and_writes_nothing(tmp_path):
    with pytest.raises(InputError, match=r"`savename` must end in one of .*pdf.*png.*'.*a\.docx'"):
        appearance.present(appearance.new_figure(2, 1), tmp_path / "a.docx")
    assert not list(tmp_path.iterdir())


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(StorageError, match="nowhere"):
        appearance.present(appearance.new_figure(2, 1), tmp_path / "nowhere" / "a.png")


@pytest.mark.parametrize("somebody", [True, False])
def test_figures_are_shown_where_somebody_can_see_them(monkeypatch, somebody):
    shown = []
    monkeypatch.setattr(appearance, "is_interactive", lambda: somebody)
    monkeypatch.setattr(plt, "show", lambda: shown.extend(plt.get_fignums()))
    appearance.present(appearance.new_figure(1, 1))
    assert len(shown) == somebody
    plt.close("all")


@pytest.mark.parametrize(
    ("backend", "somebody"),
    [
        ("agg", False),
        ("svg", False),
        ("PDF", False),
        ("tkagg", True),
        ("module://matplotlib_inline.backend_inline", True),
    ],
)
def test_windows_and_notebooks_are_told_from_files(monkeypatch, backend, somebody):
    monkeypatch.setattr(mpl, "get_backend", lambda: backend)
    assert appearance.is_interactive() == somebody


def test_figures_that_nobody_sees_are_not_kept():
    for _ in range(25):  # pyplot warns from the 21st figure on that is left open, and warnings are errors here
        appearance.new_figure(1, 1)
    assert plt.get_fignums() == []


def test_matplotlib_is_imported_when_something_is_drawn():
    modules = "appearance", "volume", "tracks", "diagnostics", "predictions"
    names = ", ".join(f"diffdet.tomography.plotting.{module}" for module in modules)
    code = f"import sys, {names}; sys.exit('matplotlib' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
