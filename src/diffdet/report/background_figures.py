"""Pictures of samples of background, side by side."""

from __future__ import annotations

from typing import Any, Final

from diffdet.report import svg

LABELS: Final = {
    "half": "real",
    "sample": "sample",
    "floor": "real, other half",
    "bootstrap": "bootstrap",
    "library": "library",
}
COLOURS: Final = {
    "half": svg.INK,
    "sample": svg.FINAL,
    "floor": svg.SOFT,
    "bootstrap": svg.FIRST,
    "library": svg.SECOND,
}
GROUPS: Final = ("layer 1 forward", "layer 1 backward", "layer 2 forward", "layer 2 backward")
WIDE: Final = 10.2

Figures = list[tuple[str, str]]


def sections(drawn: dict[str, Any]) -> list[tuple[str, bool, Figures]]:
    """All pictures, by section.

    Args:
        drawn: Content of `figures.json`.

    Returns:
        Heading, whether the figures are wide, and captions with SVG.
    """
    with svg.style():
        return [
            ("What it looks like", True, [_pictures(drawn)]),
            ("Numbers of digits", True, [_occupancy(drawn)]),
            ("From event to event", False, [_spread(drawn), _totals(drawn)]),
            ("Charges", False, [_charges(drawn), _cluster_charges(drawn)]),
            ("Clusters", True, [_sizes(drawn)]),
            ("Where on the sensor", True, [_profiles(drawn)]),
            ("Sensors together", True, [_correlation(drawn)]),
        ]


def _pictures(drawn: dict[str, Any]) -> tuple[str, str]:
    """Two sensors in one event of the real events and of the sample."""
    import numpy as np
    from matplotlib.colors import LogNorm
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDE, 5.0), layout="constrained")
    axes: Any = figure.subplots(2, 2)
    for column, (index, name) in enumerate(((0, "1.1.1"), (1, "2.1.1"))):
        for row, which in enumerate(("half", "sample")):
            u, v, charge = drawn[which]["picture"][index]
            image = np.full((250, 768), np.nan)
            image[np.asarray(u, dtype=int), np.asarray(v, dtype=int)] = charge
            one = axes[row][column]
            one.imshow(image, origin="lower", aspect="auto", cmap="viridis", norm=LogNorm(7, 150), interpolation="none")
            one.grid(False)
            svg.label(one, x="v cell" if row else "", y=f"{LABELS[which]}, sensor {name}: u cell")
    caption = "One event of the real events and one of the sample: lit pixels, brighter for more charge"
    return caption, svg.to_svg(figure, caption)


def _occupancy(drawn: dict[str, Any]) -> tuple[str, str]:
    """Digits of every sensor, and their relative difference to the real ones."""
    import numpy as np

    figure, axes = svg.new(2, width=WIDE, height=3.4)
    left, right = axes
    sensors = np.arange(40)
    real, error = (np.asarray(drawn["half"][name], dtype=float) for name in ("digits", "digits_se"))
    left.errorbar(sensors, real, error, fmt="o", ms=3, lw=1, color=COLOURS["half"], label=LABELS["half"])
    left.plot(sensors, drawn["sample"]["digits"], "_", ms=9, mew=2, color=COLOURS["sample"], label=LABELS["sample"])
    left.set_ylim(0)
    left.legend()
    svg.label(left, x="sensor: layer 1 up to 15, then layer 2", y="digits in an event")
    for name in ("floor", "sample"):
        one = np.asarray(drawn[name]["digits"], dtype=float)
        both = np.hypot(error, np.asarray(drawn[name]["digits_se"], dtype=float)) / real
        shift = 0.15 if name == "floor" else -0.15
        right.errorbar(
            sensors + shift,
            100 * (one / real - 1),
            100 * both,
            fmt="o",
            ms=3,
            lw=1,
            color=COLOURS[name],
            label=LABELS[name],
        )
    right.axhspan(-2, 2, color=svg.RULE, alpha=0.5, lw=0)
    right.legend()
    svg.label(right, x="sensor", y="difference to the real half, %")
    caption = "Mean number of digits of every sensor. Bars: one standard error; band: the target of 2 %"
    return caption, svg.to_svg(figure, caption)


def _spread(drawn: dict[str, Any]) -> tuple[str, str]:
    figure, axes = svg.new()
    for name in ("half", "floor", "sample", "bootstrap", "library"):
        marker = "o" if name in ("half", "sample") else "."
        axes.plot(range(40), drawn[name]["variance_over_mean"], marker, ms=4, color=COLOURS[name], label=LABELS[name])
    axes.set_ylim(0)
    axes.legend(ncols=2)
    svg.label(axes, x="sensor", y="variance over mean")
    caption = "Variance over mean of a sensor's digits; 1 would be pixels that fire independently"
    return caption, svg.to_svg(figure, caption)


def _totals(drawn: dict[str, Any]) -> tuple[str, str]:
    import numpy as np

    figure, axes = svg.new()
    values = {name: np.asarray(drawn[name]["totals"], dtype=float) for name in ("half", "floor", "sample")}
    together = np.concatenate(list(values.values()))
    edges = np.linspace(together.min(), together.max() + 1, 21)
    for name, totals in values.items():
        axes.hist(totals, edges, density=True, histtype="step", lw=1.6, color=COLOURS[name], label=LABELS[name])
    axes.set_yticks([])
    axes.legend()
    svg.label(axes, x="digits in an event", y="frequency")
    caption = "Digits of whole events"
    return caption, svg.to_svg(figure, caption)


def _charges(drawn: dict[str, Any]) -> tuple[str, str]:
    import numpy as np

    figure, axes = svg.new()
    for name in ("half", "library", "sample"):
        charges = np.asarray(drawn[name]["charges"], dtype=float)
        axes.step(
            np.arange(256),
            np.where(charges > 0, charges, np.nan),
            where="mid",
            lw=1.2,
            color=COLOURS[name],
            label=LABELS[name],
        )
    axes.set_yscale("log")
    axes.set_xlim(0, 256)
    axes.legend()
    svg.label(axes, x="charge of a pixel, ADU", y="share of digits")
    caption = "Spectrum of pixel charges, from the threshold at 7 ADU to saturation at 255 less the pedestal"
    return caption, svg.to_svg(figure, caption)


def _cluster_charges(drawn: dict[str, Any]) -> tuple[str, str]:
    import numpy as np

    figure, axes = svg.new()
    charge = 5 * 10 ** ((np.arange(120) + 0.5) / 40)
    for name in ("half", "library", "sample"):
        axes.plot(charge, drawn[name]["cluster_charges"], lw=1.3, color=COLOURS[name], label=LABELS[name])
    axes.set_xscale("log")
    axes.legend()
    svg.label(axes, x="charge of a cluster, ADU", y="share of clusters")
    caption = "Spectrum of cluster charges, in bins of equal ratio"
    return caption, svg.to_svg(figure, caption)


def _sizes(drawn: dict[str, Any]) -> tuple[str, str]:
    import numpy as np

    figure, axes = svg.new(3, width=WIDE, height=3.2, sharey=True)
    names = (("sizes", "pixels"), ("sizes_u", "extent in u"), ("sizes_v", "extent in v"))
    for one, (key, text) in zip(axes, names, strict=True):
        for name in ("half", "library", "sample"):
            mean = np.asarray(drawn[name][key], dtype=float).mean(0)[:-1]
            one.step(
                np.arange(1, len(mean) + 1),
                np.where(mean > 0, mean, np.nan),
                where="mid",
                lw=1.3,
                color=COLOURS[name],
                label=LABELS[name],
            )
        one.set_yscale("log")
        svg.label(one, x=f"{text} of a cluster", y="share of clusters")
    axes[0].legend()
    caption = "Sizes of clusters: pixels that touch, also at corners"
    return caption, svg.to_svg(figure, caption)


def _profiles(drawn: dict[str, Any]) -> tuple[str, str]:
    import numpy as np
    from matplotlib.figure import Figure

    figure = Figure(figsize=(WIDE, 5.2), layout="constrained")
    axes: Any = figure.subplots(2, 4, sharey=True)
    for kind, title in enumerate(GROUPS):
        for row, (key, cells) in enumerate((("profile_v", 768), ("profile_u", 250))):
            one = axes[row][kind]
            for name in ("half", "sample"):
                values = np.asarray(drawn[name][key][kind], dtype=float)
                centre = (np.arange(len(values)) + 0.5) * cells / len(values)
                one.step(centre, values, where="mid", lw=1.3, color=COLOURS[name], label=LABELS[name])
            one.set_ylim(0.5, 1.5)
            svg.label(one, x="v cell" if key == "profile_v" else "u cell", y=title if row == 0 else "")
    axes[0][0].legend()
    caption = "Digits along v (above; the pitch changes) and u (below), relative to the mean"
    return caption, svg.to_svg(figure, caption)


def _correlation(drawn: dict[str, Any]) -> tuple[str, str]:
    import numpy as np

    figure, axes = svg.new(3, width=WIDE, height=3.4)
    shown: Any = None
    for one, name in zip(axes, ("half", "floor", "sample"), strict=True):
        matrix = np.asarray(drawn[name]["spearman"], dtype=float)
        matrix = np.where(np.eye(len(matrix), dtype=bool), np.nan, matrix)
        shown = one.imshow(matrix, cmap="RdBu_r", vmin=-0.5, vmax=0.5, origin="lower", interpolation="none")
        one.grid(False)
        svg.label(one, x="sensor", y=LABELS[name])
    figure.colorbar(shown, ax=axes, shrink=0.8)
    caption = "Rank correlation of the numbers of digits of sensors over events"
    return caption, svg.to_svg(figure, caption)
