"""The picture of a series of checkpoints: norms, effective step sizes and lost updates, a line a layer."""

from __future__ import annotations

from typing import TYPE_CHECKING

from matplotlib.ticker import MaxNLocator

from normcheck.render.plots import Kind, blank, figure_bytes, label, style, styled

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from matplotlib.axes import Axes

    from normcheck.results.track import Point, Spread, TrackedLayer, TrackReport

MOST = 8
"""Layers that are drawn: more lines cannot be told apart."""
_WIDTH, _HEIGHT, _ROW = 8.0, 2.3, 0.22


def picture(report: TrackReport, kind: Kind) -> bytes:
    """Return the picture of the worst layers as the bytes of a file.

    Norms and effective step sizes are medians of the channels, with a band from their 5 % to their 95 % quantile. What
    is not known of any layer, such as the effective step size without a learning rate, has no panel.
    """
    layers = report.layers[:MOST]
    panels = _panels(report, layers)
    with style():
        figure = blank(_WIDTH, 0.6 + _HEIGHT * len(panels) + _ROW * len(layers))
        axes = figure.subplots(len(panels), 1, sharex=True, squeeze=False)[:, 0]
        for ax, (title, draw) in zip(axes, panels, strict=True):
            ax.set_title(title, loc="left")
            for index, layer in enumerate(layers):
                draw(ax, index, layer)
        stated = all(c.step is not None for c in report.checkpoints)
        axes[-1].xaxis.set_major_locator(MaxNLocator(integer=True))
        axes[-1].set_xlabel("step" if stated else "checkpoint")
        handles, _ = axes[0].get_legend_handles_labels()
        if handles:
            figure.legend(handles=handles, loc="outside lower left")
        left = len(report.layers) - len(layers)
        figure.suptitle(
            f"normcheck track: the {MOST} worst of {len(report.layers)} layers" if left else "normcheck track"
        )
    return figure_bytes(figure, kind)


def _panels(
    report: TrackReport, layers: Sequence[TrackedLayer]
) -> list[tuple[str, Callable[[Axes, int, TrackedLayer], None]]]:
    """The panels that have something to show; norms always."""
    points = [point for layer in layers for point in layer.points]
    places = _places(report)
    panels = [("norm of a channel: median, 5 to 95 %", _banded(places, lambda point: point.channel_norms))]
    if any(point.effective_step for point in points):
        panels.append(("effective step size, likewise", _banded(places, lambda point: point.effective_step)))
    if any(point.angle_degrees for point in points):
        panels.append(
            (
                "turned since the checkpoint before, degrees, likewise",
                _banded(places, lambda point: point.angle_degrees),
            )
        )
    for index, precision in enumerate(report.settings["precision"]):
        if any(point.lost for point in points):
            panels.append((f"share of updates lost in {precision}", _shares(places, index)))
    return panels


def _named(layer: TrackedLayer) -> str:
    return label(layer.name) + (" (not scale invariant)" if layer.scope == "none" else "")


def _places(report: TrackReport) -> list[float]:
    """Where each checkpoint stands: its step, where all state one, else its number."""
    steps = [checkpoint.step for checkpoint in report.checkpoints]
    return [float(i if step is None or None in steps else step) for i, step in enumerate(steps)]


def _banded(
    places: Sequence[float], value: Callable[[Point], Spread | None]
) -> Callable[[Axes, int, TrackedLayer], None]:
    def draw(ax: Axes, index: int, layer: TrackedLayer) -> None:
        found = [(places[point.checkpoint], each) for point in layer.points if (each := value(point)) is not None]
        xs = [x for x, _ in found]
        look = styled(index)
        ax.plot(xs, [each.median for _, each in found], label=_named(layer), marker=".", **look)
        ax.fill_between(
            xs, [each.low for _, each in found], [each.high for _, each in found],
            color=look["color"], alpha=0.15, linewidth=0,
        )  # fmt: skip
        if any(each.median > 0 for _, each in found):
            ax.set_yscale("log")

    return draw


def _shares(places: Sequence[float], index: int) -> Callable[[Axes, int, TrackedLayer], None]:
    def draw(ax: Axes, number: int, layer: TrackedLayer) -> None:
        told = [(places[p.checkpoint], p.lost[index].share) for p in layer.points if p.lost]
        found = [(x, share) for x, share in told if share is not None]
        ax.plot([x for x, _ in found], [y for _, y in found], label=_named(layer), marker=".", **styled(number))
        ax.set_ylim(-0.02, 1.02)

    return draw
