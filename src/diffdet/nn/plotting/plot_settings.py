"""How pictures look: sizes, colours, places."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from diffdet.core.checks import check_choice, did_you_mean
from diffdet.core.errors import InputError

__all__ = ["PlotSettings"]

_SIZES = ("small", "mid", "large", "huge")


class PlotSettings:
    """Appearance of pictures, as attributes. Each can be given by name or changed later.

    Args:
        **overrides: Attributes to change. Unknown names are refused. (The original drops them in silence.)

    Attributes:
        style: Name of a style, or a dict ``{"style": name, "rc": settings of matplotlib}``; ``"whitegrid"``,
            ``"white"``, ``"darkgrid"``, ``"dark"`` and ``"ticks"`` are known.
        cat_palette: Colour map of categories.
        div_palette: Colour map of what has a sign.
        seq_palette: Colour map of magnitudes.
        tk_sz: Size of tick labels, points.
        tk_col: Colour of tick labels.
        lbl_sz: Size of axis labels, points.
        lbl_col: Colour of axis labels.
        title: Title of pictures.
        title_sz: Its size, points.
        title_col: Its colour.
        title_loc: Its place: ``"left"``, ``"center"`` or ``"right"``.
        leg_sz: Size of legends, points.
        leg_loc: Their place.
        savepath: Folder to save to.
        format: Suffix of files, with or without a dot.
        h_small: Heights, inches; widths ``w_small``, ... are `aspect` times those.
        h_mid: See `h_small`.
        h_large: See `h_small`.
        h_huge: See `h_small`.
        aspect: Width over height.
        targ2class: Names of classes by target.
        sample2col: Colours of samples by name, numbers in `cat_palette`; None to number them.

    Raises:
        InputError: If a name is unknown.

    Example:
        >>> settings = PlotSettings(style="white", format="png", h_mid=6)
        >>> settings.style, settings.format, settings.w_mid, settings.str2sz("mid", "x")
        ({'style': 'white'}, '.png', 10.666666666666666, 10.666666666666666)
    """

    style: dict[str, Any]
    leg_loc: Any
    title_loc: Any

    def __init__(self, **overrides: Any) -> None:
        self.style = {"style": "whitegrid", "rc": {"patch.edgecolor": "none"}}
        self.cat_palette = "tab10"
        self.div_palette = "RdBu_r"
        self.seq_palette = "viridis"
        self.tk_sz = 16
        self.tk_col = "black"
        self.lbl_sz = 24
        self.lbl_col = "black"
        self.title = ""
        self.title_sz = 26
        self.title_col = "black"
        self.title_loc = "left"
        self.leg_sz = 16
        self.leg_loc = "best"
        self.savepath = Path(".")
        self.format = ".pdf"
        self.h_small, self.h_mid, self.h_large, self.h_huge = 4.0, 8.0, 12.0, 16.0
        self.aspect = 16 / 9
        self.targ2class: dict[int, str] = {0: "Background", 1: "Signal"}
        self.sample2col: dict[str, int] | None = None
        known = [*vars(self), *(f"w_{size}" for size in _SIZES)]
        for name in overrides:
            if name not in known:
                raise InputError(
                    f"`PlotSettings` has no {name!r}; it has {', '.join(known)}{did_you_mean(name, known)}"
                )
        for name, value in overrides.items():
            setattr(self, name, value)

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "style" and isinstance(value, str):
            value = {"style": value}
        if name == "savepath":
            value = Path(value)
        if name == "format" and not str(value).startswith("."):
            value = f".{value}"
        super().__setattr__(name, value)

    def __getattr__(self, name: str) -> Any:
        # Widths follow heights, unless they have been set.
        size = name.removeprefix("w_")
        if name.startswith("w_") and size in _SIZES:
            return self.aspect * getattr(self, f"h_{size}")
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}")

    def str2sz(self, size: str, ax: str) -> float:
        """Inches of a named size.

        Args:
            size: ``"small"``, ``"mid"``, ``"large"`` or ``"huge"``.
            ax: ``"x"`` for the width, ``"y"`` for the height.

        Raises:
            InputError: If a name is unknown.
        """
        check_choice("size", size, _SIZES)
        check_choice("ax", ax, ("x", "y"))
        return float(getattr(self, f"{'w' if ax == 'x' else 'h'}_{size}"))

    def rc(self) -> dict[str, Any]:
        """The settings as matplotlib takes them."""
        name = str(self.style.get("style", "whitegrid"))
        grid, dark = name.endswith("grid"), name.startswith("dark")
        settings = {
            "axes.grid": grid,
            "axes.axisbelow": True,
            "axes.facecolor": "#EAEAF2" if dark else "white",
            "grid.color": "white" if dark else "#E0E0E0",
            "axes.edgecolor": "#999999",
            "axes.titlelocation": self.title_loc,
            "axes.titlesize": self.title_sz,
            "axes.titlecolor": self.title_col,
            "axes.labelsize": self.lbl_sz,
            "axes.labelcolor": self.lbl_col,
            "xtick.labelsize": self.tk_sz,
            "ytick.labelsize": self.tk_sz,
            "xtick.labelcolor": self.tk_col,
            "ytick.labelcolor": self.tk_col,
            "xtick.major.size": 6 if name == "ticks" else 3,
            "legend.fontsize": self.leg_sz,
            "legend.frameon": False,
            "font.size": self.tk_sz,
            "lines.linewidth": 2,
            "image.cmap": self.seq_palette,
            "savefig.dpi": 150,
            "pdf.fonttype": 42,
        }
        extra = self.style.get("rc") or {}
        return settings | (dict(extra) if isinstance(extra, Mapping) else {})
