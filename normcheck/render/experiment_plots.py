"""The plots of experiments: curves with bands over the seeds, and maps of cells. Importing this loads matplotlib."""

from __future__ import annotations

from statistics import fmean
from typing import TYPE_CHECKING

import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.ticker import NullLocator

from normcheck.render.experiments import picture_name
from normcheck.render.figures import figure as shown
from normcheck.render.plots import COLORMAP, PALETTE, blank, figure_bytes, label, style, styled

if TYPE_CHECKING:
    from collections.abc import Iterator

    from matplotlib.axes import Axes

    from normcheck.results.experiment import Cell, Curves, Experiment, HeatMap

_WIDTH, _HEIGHT = 6.4, 4.0
_CELL = 1.0, 0.4
"""Inches of a cell of a map."""
_BAND = 0.15
"""Opacity of a band."""
_INSET = 0.47
"""Half the side of an outline, in cells."""
_OUTLINE = PALETTE[1]
_FEW = 12
"""So many points of a curve or fewer are marked, and so many places of a logarithmic axis have ticks of their own."""


def pictures(experiment: Experiment) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each PNG of an experiment."""
    with style():
        for curves in experiment.curves:
            yield picture_name(experiment, curves), _lines(curves)
        for heat_map in experiment.maps:
            yield picture_name(experiment, heat_map), _map(heat_map)


def _lines(curves: Curves) -> bytes:
    found = blank(_WIDTH, _HEIGHT)
    axes = found.subplots()
    for index, series in enumerate(curves.series):
        look = styled(index)
        axes.plot(series.x, series.y, label=label(series.name), marker="." if len(series.x) <= _FEW else "", **look)
        if series.low:
            axes.fill_between(series.x, series.low, series.high, color=look["color"], alpha=_BAND, linewidth=0)
    if curves.log_x:
        axes.set_xscale("log")
        places = sorted({x for series in curves.series for x in series.x})
        if len(places) <= _FEW:
            axes.set_xticks(places, [_tick(x) for x in places])
            axes.xaxis.set_minor_locator(NullLocator())
    if curves.log_y:
        axes.set_yscale("log")
    _titles(axes, curves)
    if len(curves.series) > 1:
        found.legend(loc="outside lower center", ncols=min(len(curves.series), 3))
    return figure_bytes(found, "png")


def _map(heat_map: HeatMap) -> bytes:
    """A cell for each pair of x and y, evenly spaced; outlined where the simulator says otherwise than the run."""
    xs, ys = sorted({cell.x for cell in heat_map.cells}), sorted({cell.y for cell in heat_map.cells})
    means = np.full((len(ys), len(xs)), np.nan)
    for cell in heat_map.cells:
        means[ys.index(cell.y), xs.index(cell.x)] = fmean(cell.values)
    low, high = min(0.0, float(np.nanmin(means))), max(1.0, float(np.nanmax(means)))
    found = blank(max(_CELL[0] * len(xs) + 2, 4), _CELL[1] * len(ys) + 1.4)
    axes = found.subplots()
    axes.grid(visible=False)
    image = axes.imshow(means, origin="lower", aspect="auto", cmap=COLORMAP, vmin=low, vmax=high)
    for cell in heat_map.cells:
        at = xs.index(cell.x), ys.index(cell.y)
        dark = fmean(cell.values) < (low + high) / 2  # the colours grow lighter with the value
        axes.text(*at, _told(cell), ha="center", va="center", fontsize=6.5, color="white" if dark else "black")
        if not cell.agrees:
            corner = at[0] - _INSET, at[1] - _INSET
            axes.add_patch(Rectangle(corner, 2 * _INSET, 2 * _INSET, fill=False, edgecolor=_OUTLINE, linewidth=2))
    axes.set_xticks(range(len(xs)), [_tick(x) for x in xs])
    axes.set_yticks(range(len(ys)), [_tick(y) for y in ys])
    found.colorbar(image, label=label(heat_map.value_label))
    _titles(axes, heat_map)
    if not all(cell.agrees for cell in heat_map.cells):
        axes.set_xlabel(f"{label(heat_map.x_label)}\noutlined: the simulator says otherwise")
    return figure_bytes(found, "png")


def _told(cell: Cell) -> str:
    """What a cell says: its mean value, and the failing step where the simulator names one."""
    step = [] if cell.step is None else [label(cell.step)]
    return "\n".join([f"{fmean(cell.values):.2f}", *step])


def _tick(value: float) -> str:
    return shown(value) if value % 1 else f"{value:.0f}"


def _titles(axes: Axes, plot: Curves | HeatMap) -> None:
    axes.set_title(label(plot.title))
    axes.set_xlabel(label(plot.x_label))
    axes.set_ylabel(label(plot.y_label))
