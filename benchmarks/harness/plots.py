"""Plots of figures, as SVG; without matplotlib there are none."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

#: The same colour for a producer wherever it appears; what is not here has that of its way of sending.
COLOURS = {
    "ours": "#2f81f7",
    "compiled": "#1f4fb0",
    "theirs": "#8b949e",
    "send_nowait": "#08519c",
    "send_nowait, own loop": "#4292c6",
    "send_nowait, own loop, compiled": "#4292c6",
    "await send": "#9ecae1",
    "send_many": "#9ecae1",
    "send_and_wait": "#08519c",
    "KafkaProducer": "#d95f02",
    "aiokafka": "#1b9e77",
    "AIOProducer": "#7570b3",
    "Producer (C)": "#666666",
}

#: Readable on white and on black, as a README is shown.
_INK = "#7d8590"

#: A line with this many points needs no markers.
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
    drawn = axes.barh(list(figures), list(figures.values()), color=[_colour(name) for name in figures])
    axes.bar_label(drawn, [_short(figure) for figure in figures.values()], padding=3, fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.2)
    axes.tick_params(labelsize=8)
    axes.ticklabel_format(axis="x", style="plain")
    axes.xaxis.set_major_locator(_few_ticks())
    axes.xaxis.set_major_formatter(lambda figure, _: _short(figure))
    axes.spines[["top", "right"]].set_visible(False)


def _colour(name: str) -> str | None:
    return COLOURS.get(name) or COLOURS.get(name.partition(",")[0])


def _few_ticks() -> Any:
    from matplotlib.ticker import MaxNLocator

    return MaxNLocator(4)


def headline(path: Path, title: str, figures: Mapping[str, float], kinds: Mapping[str, str]) -> None:
    """A bar for each producer, the longest first, with its figure; for light and for dark pages.

    `kinds` says which are ``ours``, ``compiled`` or ``theirs``.
    """
    figures = dict(sorted(figures.items(), key=lambda one: -one[1]))
    figure, (axes,) = _figure(1, 1, 7.2, 0.8 + 0.32 * len(figures))
    colours = [COLOURS[kinds[name]] for name in figures]
    drawn = axes.barh(list(figures), list(figures.values()), 0.66, color=colours)
    axes.bar_label(drawn, [f"{each:,.0f}" for each in figures.values()], padding=5, fontsize=10, color=_INK)
    axes.invert_yaxis()
    axes.margins(x=0.14, y=0.02)
    axes.xaxis.set_visible(False)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0, labelsize=10, labelcolor=_INK)
    for label, name in zip(axes.get_yticklabels(), figures, strict=True):
        if kinds[name] != "theirs":
            label.set(weight="bold", color=COLOURS["ours"])
    axes.set_title(title, loc="left", fontsize=11, color=_INK, x=0)
    _save(figure, path, transparent=True)


def lines(path: Path, title: str, along: str, up: str, series: Series, *, log: str = "") -> None:
    """A line for each producer; `log` names the axes that are logarithmic."""
    figure, (axes,) = _figure(1, 1, 7.5, 4.5)
    _draw(axes, along, up, series, log)
    axes.legend(fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))  # beside all lines
    _finish(figure, title, path)


def panels(path: Path, title: str, up: str, every: Mapping[str, Series]) -> None:
    """Several such plots beside each other, with one scale upwards, from nought; along it is logarithmic."""
    figure, grid = _figure(1, len(every), 3.1, 4.0, sharey=True)
    for axes, (along, series) in zip(grid, every.items(), strict=True):
        _draw(axes, along, up if axes is grid[0] else "", series, "x")
        axes.set_ylim(bottom=0)
    _name_lines(grid)
    _finish(figure, title, path)


def _name_lines(grid: Sequence[Any]) -> None:
    """Each once, beside all panels."""
    named = {
        name: line for axes in grid for line, name in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    last = grid[-1]
    last.legend(named.values(), named, fontsize=8, frameon=False, loc="center left", bbox_to_anchor=(1, 0.5))


def _draw(axes: Any, along: str, up: str, series: Series, log: str) -> None:
    for name, figures in series.items():
        places, heights = list(figures), list(figures.values())
        marker = "o" if len(figures) < _MANY else ""
        style = "--" if "compiled" in name else "-"
        axes.plot(places, heights, label=name, color=_colour(name), marker=marker, linestyle=style)
    for name, axis in (("x", axes.xaxis), ("y", axes.yaxis)):
        if name in log:
            _make_logarithmic(axes, name, axis)
        axis.set_major_formatter(lambda figure, _: _short(figure))
    axes.set_xlabel(along)
    axes.set_ylabel(up)
    axes.grid(color="#dddddd", linewidth=0.6)
    axes.spines[["top", "right"]].set_visible(False)


def _make_logarithmic(axes: Any, name: str, axis: Any) -> None:
    from matplotlib.ticker import LogLocator, NullLocator

    axes.set(**{f"{name}scale": "log"})
    axis.set_major_locator(LogLocator(subs=(1,) if name == "x" else (1, 2, 5)))
    axis.set_minor_locator(NullLocator())


def _figure(rows: int, columns: int, width: float, height: float, **more: Any) -> tuple[Any, list[Any]]:
    """A figure, and its axes in one list; `width` and `height` are those of one of them, in inches."""
    import matplotlib as mpl

    mpl.use("agg")
    mpl.rcParams["svg.hashsalt"] = "trio_kprod"  # the same figures make the same file
    # Letters as text, of few fonts: outlines, and the names of a dozen fonts, would be most of the file.
    mpl.rcParams["svg.fonttype"] = "none"
    mpl.rcParams["font.sans-serif"] = ["DejaVu Sans", "Verdana"]
    import matplotlib.pyplot as plt

    size = (columns * width, rows * height)
    figure, grid = plt.subplots(rows, columns, figsize=size, squeeze=False, **more)
    return figure, [axes for row in grid for axes in row]


def _finish(figure: Any, title: str, path: Path) -> None:
    figure.suptitle(title, fontsize=11)
    _save(figure, path)


def _save(figure: Any, path: Path, **more: Any) -> None:
    import matplotlib.pyplot as plt

    figure.tight_layout()
    figure.savefig(
        path, bbox_inches="tight", metadata={"Date": None} if path.suffix == ".svg" else None, **more
    )
    plt.close(figure)


def _short(figure: float) -> str:
    """Three digits of it are enough."""
    for unit, name in ((1e6, " M"), (1e3, " k")):
        if figure >= unit:
            return f"{figure / unit:.3g}{name}"
    return f"{figure:.3g}"
