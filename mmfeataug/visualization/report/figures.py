# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Figures of a report. A name has the same colour in all of them."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmfeataug.evaluation import Curve, Spread, less_is_better

_BASELINE = '#4d5663'
# Okabe and Ito's, which colour-blind readers tell apart, and two more.
_PALETTE = ('#0072b2', '#d55e00', '#009e73', '#cc79a7', '#e69f00', '#56b4e9', '#8c4a2f', '#6a3d9a')
_DASHES = ('-', '--', ':', '-.')
_MARKERS = 'osD^vP'


@dataclass(frozen=True)
class Style:
    """How one name is drawn."""

    color: str
    dash: str = '-'
    marker: str = 'o'


def styles(names: Iterable[str], baseline: str | None) -> dict[str, Style]:
    """Colours by name: grey for the baseline; beyond eight others dashes tell them apart."""
    others = [name for name in dict.fromkeys(names) if name != baseline]
    found = {baseline: Style(_BASELINE)} if baseline is not None else {}
    for i, name in enumerate(others):
        turn, place = divmod(i, len(_PALETTE))
        found[name] = Style(
            _PALETTE[place], _DASHES[turn % len(_DASHES)], _MARKERS[(i + 1) % len(_MARKERS)]
        )
    return found


def draw_families(
    values: Mapping[str, Mapping[str, Spread | None]],
    families: Sequence[str],
    metric: str,
    style: Mapping[str, Style],
) -> Figure:
    """Bars of the mean within each family, names side by side; error bars over seeds."""
    size = (max(5.2, 1.6 + 0.32 * len(families) * (len(values) + 1)), 3.9)
    figure, (axes,) = _figures(size, 1, 1)
    width = 0.82 / max(len(values), 1)
    for i, (name, by_family) in enumerate(values.items()):
        shift = (i - (len(values) - 1) / 2) * width
        bars = [(j + shift, s) for j, f in enumerate(families) if (s := by_family.get(f))]
        axes.bar(
            [place for place, _ in bars],
            [s.mean for _, s in bars],
            width * 0.92,
            color=style[name].color,
            hatch=None if style[name].dash == '-' else '//',
            yerr=_error_bars([s for _, s in bars]),
            error_kw=dict(capsize=2.5, linewidth=1, ecolor='#222'),
            label=name,
        )
    axes.set_xticks(np.arange(len(families)), families)
    axes.set_ylabel(metric)
    _from_zero(axes)
    axes.grid(axis='y', alpha=0.3)
    axes.set_axisbelow(True)
    return _with_legend(figure, [axes])


def draw_lines(
    curves: Mapping[str, Mapping[float, Spread | None]],
    xlabel: str,
    ylabel: str,
    style: Mapping[str, Style],
    integers: bool = False,
) -> Figure:
    """One line a name over places on the axis, with error bars over seeds; ``integers`` puts ticks
    at the places only.
    """
    figure, (axes,) = _figures((5.2, 3.9), 1, 1)
    for name, curve in curves.items():
        points = [(x, s) for x, s in sorted(curve.items()) if s is not None]
        axes.errorbar(
            [x for x, _ in points],
            [s.mean for _, s in points],
            yerr=_error_bars([s for _, s in points]),
            color=style[name].color,
            linestyle=style[name].dash,
            marker=style[name].marker,
            markersize=4.5,
            capsize=2.5,
            label=name,
        )
    axes.set(xlabel=xlabel, ylabel=ylabel)
    if integers:
        axes.set_xticks(sorted({x for curve in curves.values() for x in curve}))
    _from_zero(axes)
    axes.grid(alpha=0.3)
    return _with_legend(figure, [axes])


def draw_frontier(
    values: Mapping[str, Mapping[str, Spread | None]],
    costs: Mapping[str, float],
    metric: str,
    style: Mapping[str, Style],
) -> Figure:
    """MPC over clean performance, and over cost in stock steps, where that is known for all names;
    keys of ``values`` are ``'P'`` and ``'mPC'``.
    """
    known = {
        n: (p, c) for n, row in values.items() if (p := row.get('P')) and (c := row.get('mPC'))
    }
    panels = 2 if known.keys() <= costs.keys() else 1
    figure, grid = _figures((4.8 * panels, 3.9), 1, panels)
    less = -1 if less_is_better(metric) else 1
    for panel, axes in enumerate(grid):
        front = []
        for name, (clean, corrupted) in known.items():
            x = Spread(costs[name], None, 1) if panel else clean
            axes.errorbar(
                x.mean,
                corrupted.mean,
                xerr=x.std,
                yerr=corrupted.std,
                color=style[name].color,
                marker=style[name].marker,
                markersize=7,
                capsize=2.5,
                linestyle='none',
                label=name,
            )
            front.append((x.mean, corrupted.mean))
        gain = -1 if panel else less
        best = sorted(
            (x, y) for x, y in front if not any(
                (gain * (u - x) >= 0 and less * (v - y) >= 0 and (u, v) != (x, y))
                for u, v in front
            )
        )  # fmt: skip
        axes.plot([x for x, _ in best], [y for _, y in best], ':', color='#8a929c', zorder=0)
        axes.set_xlabel('cost of training, in stock steps' if panel else f'{metric}, clean')
        axes.margins(0.15)
        axes.grid(alpha=0.3)
    grid[0].set_ylabel(f'{metric}, mPC')
    return _with_legend(figure, grid)


def draw_training(
    panels: Mapping[str, Mapping[str, Sequence[Curve]]],
    ylabel: str,
    style: Mapping[str, Style],
) -> Figure:
    """One panel per scalar, one line per name: the mean over seeds, and each seed thin behind it.
    A scalar called ``ylabel`` has a large panel without a title.
    """
    columns = min(4, len(panels))
    rows = math.ceil(len(panels) / columns)
    size = (9.6, 3.6) if ylabel in panels else (2.9 * columns, 2.1 * rows + 0.6)
    figure, grid = _figures(size, rows, columns)
    for axes in grid[len(panels) :]:
        axes.set_axis_off()
    for i, (axes, (title, by_name)) in enumerate(zip(grid, panels.items(), strict=False)):
        for name, seeds in by_name.items():
            _draw_seeds(axes, name, [seed for seed in seeds if seed], style[name])
        if title != ylabel:
            axes.set_title(title, fontsize=9)
        if i + columns >= len(panels):
            axes.set_xlabel('iteration', fontsize=9)
        _from_zero(axes)
        axes.grid(alpha=0.3)
        axes.tick_params(labelsize=8)
    for axes in grid[: len(panels) : columns]:
        axes.set_ylabel(ylabel, fontsize=9)
    return _with_legend(figure, grid)


def _draw_seeds(axes: Axes, name: str, seeds: Sequence[Curve], style: Style) -> None:
    if not seeds:
        return
    shared = sorted(set.intersection(*({x for x, _ in seed} for seed in seeds)))
    lookups = [dict(seed) for seed in seeds]
    mean = np.array([np.mean([lookup[x] for lookup in lookups]) for x in shared])
    width = max(1, len(shared) // 40)
    behind = list(seeds) if len(seeds) > 1 else ([seeds[0]] if width > 1 else [])
    for seed in behind:
        axes.plot(*zip(*seed, strict=True), color=style.color, alpha=0.25, linewidth=0.8)
    if len(mean):
        # The average of what lies before a point, as in a log.
        mean = np.convolve(mean, np.ones(width) / width, mode='valid')
        axes.plot(
            shared[width - 1 :],
            mean,
            color=style.color,
            linestyle=style.dash,
            linewidth=1.6,
            label=name,
            # A single record is no line.
            marker=style.marker if len(mean) == 1 else None,
            markersize=4,
        )


def _figures(size: tuple[float, float], rows: int, columns: int) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=size, layout='constrained')
    grid = figure.subplots(rows, columns, squeeze=False)
    for axes in grid.flat:
        axes.spines[['top', 'right']].set_visible(False)
    return figure, list(grid.flat)


def _from_zero(axes: Axes) -> None:
    """Heights can be compared by eye; what is negative is seen too."""
    low, high = axes.dataLim.intervaly
    if math.isfinite(low) and math.isfinite(high):
        low = min(0.0, float(low))
        axes.set_ylim(low * 1.06, float(high) + 0.06 * (float(high) - low or 1.0))


def _with_legend(figure: Figure, grid: Sequence[Axes]) -> Figure:
    """Above the axes, where it hides nothing."""
    handles = {
        label: handle
        for axes in grid
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True)
    }
    longest = max(map(len, handles), default=0)
    across = max(1, int(figure.get_figwidth() * 9 / (longest + 6)))
    if handles:
        figure.legend(
            handles.values(),
            handles.keys(),
            loc='outside upper center',
            ncols=min(across, len(handles)),
            frameon=False,
            fontsize=9,
        )
    return figure


def _error_bars(spreads: Sequence[Spread]) -> list[float] | None:
    """Deviations over seeds, if any name has several."""
    known = any(s.std is not None for s in spreads)
    return [s.std or 0.0 for s in spreads] if known else None
