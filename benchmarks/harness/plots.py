"""Plots of figures, as SVG; without matplotlib there are none."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

#: The same colour for a producer wherever it appears; ours are of one kind.
COLOURS = {
    "send_nowait": "#08519c",
    "await send": "#3182bd",
    "send_many": "#9ecae1",
    "send_and_wait": "#08519c",
    "KafkaProducer": "#d95f02",
    "aiokafka": "#1b9e77",
    "AIOProducer": "#7570b3",
    "Producer (C)": "#666666",
}

#: With so many points a line needs no markers.
_MANY = 20

Series = Mapping[str, Mapping[Any, float]]


def can_plot() -> bool:
    """Whether matplotlib is here."""
    return importlib.util.find_spec("matplotlib") is not None


def bars(path: Path, title: str, unit: str, by_case: Series) -> None:
    """A panel for each case with a scale of its own, from nought; a bar for each producer, and its figure."""
    columns = min(3, len(by_case))
    rows = -(-len(by_case) // columns)
    tallest = max(map(len, by_case.values()))
    figure, grid = _figure(rows, columns, max(4.2, 11 / columns), 0.9 + 0.28 * tallest)
    for axes, (case, figures) in zip(grid, by_case.items(), strict=False):
        _draw_bars(axes, figures)
        axes.set_title(case, fontsize=9, loc="left", weight="bold")
        axes.set_xlabel(unit, fontsize=8)
    for axes in grid[len(by_case) :]:
        axes.set_visible(False)
    _finish(figure, title, path)


def _draw_bars(axes: Any, figures: Mapping[Any, float]) -> None:
    drawn = axes.barh(list(figures), list(figures.values()), color=[COLOURS.get(name) for name in figures])
    axes.bar_label(drawn, [_short(figure) for figure in figures.values()], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.tick_params(labelsize=8)
    axes.ticklabel_format(axis="x", style="plain")
    axes.xaxis.set_major_locator(_few_ticks())
    axes.xaxis.set_major_formatter(lambda figure, _: _short(figure))
    axes.spines[["top", "right"]].set_visible(False)


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


def lines(path: Path, title: str, along: str, up: str, series: Series, *, log: str = "") -> None:
    """A line for each producer; `log` names the axes that are logarithmic."""
    figure, (axes,) = _figure(1, 1, 7.5, 4.5)
    _draw(axes, along, up, series, log)
    _finish(figure, title, path)


def panels(path: Path, title: str, up: str, every: Mapping[str, Series]) -> None:
    """Several such plots beside each other, with one scale upwards, from nought; along it is logarithmic."""
    figure, grid = _figure(1, len(every), 3.1, 4.0, sharey=True)
    for axes, (along, series) in zip(grid, every.items(), strict=True):
        _draw(axes, along, up if axes is grid[0] else "", series, "x")
        axes.set_ylim(bottom=0)
    _finish(figure, title, path)


def _draw(axes: Any, along: str, up: str, series: Series, log: str) -> None:
    for name, figures in series.items():
        places, heights = list(figures), list(figures.values())
        marker = "o" if len(figures) < _MANY else ""
        axes.plot(places, heights, label=name, color=COLOURS.get(name), marker=marker)
    if "x" in log:
        axes.set_xscale("log")
    if "y" in log:
        axes.set_yscale("log")
    axes.yaxis.set_major_formatter(lambda figure, _: _short(figure))
    axes.set_xlabel(along)
    axes.set_ylabel(up)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.legend(fontsize=8, frameon=False)
    axes.spines[["top", "right"]].set_visible(False)


def _figure(rows: int, columns: int, width: float, height: float, **more: Any) -> tuple[Any, list[Any]]:
    """A figure, and its axes in one list; `width` and `height` are those of one of them, in inches."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "trio_kprod"  # the same figures make the same file
    import matplotlib.pyplot as plt

    size = (columns * width, rows * height)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, **more)
    return figure, [axes for row in grid for axes in row]


def _finish(figure: Any, title: str, path: Path) -> None:
    import matplotlib.pyplot as plt

    figure.suptitle(title, fontsize=11)
    figure.tight_layout()
    figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else None)
    plt.close(figure)


def _short(figure: float) -> str:
    """Three digits of it are enough."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if figure >= unit:
            return f"{figure / unit:.3g}{name}"
    return f"{figure:.3g}"
