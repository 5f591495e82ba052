# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Draws ``design.png``: the rooms, and the data flow of one iteration. Run: python
docs/images/draw_design.py
"""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

CLEAN, VIEW, PLAIN, GREY = '#2b6cb0', '#c05621', '#edf2f7', '#718096'


def box(axes, x, y, width, height, text, face=PLAIN, edge=GREY, size=9):
    axes.add_patch(
        FancyBboxPatch(
            (x, y), width, height, boxstyle='round,pad=0.02', facecolor=face, edgecolor=edge
        )
    )
    axes.text(x + width / 2, y + height / 2, text, ha='center', va='center', fontsize=size)


def arrow(axes, start, end, color=GREY, style='-', bend=0.0):
    axes.add_patch(
        FancyArrowPatch(
            start,
            end,
            arrowstyle='-|>',
            mutation_scale=11,
            color=color,
            linestyle=style,
            connectionstyle=f'arc3,rad={bend}',
        )
    )


def draw_rooms(axes):
    box(axes, 0.1, 4.2, 1.7, 0.6, 'hooks/\nschedule, logging')
    box(axes, 2.1, 4.2, 1.7, 0.6, 'models/\ndeclare taps')
    box(axes, 1.1, 3.2, 1.7, 0.6, 'api.attach')
    box(axes, 0.1, 2.2, 1.7, 0.6, 'methods/\none file a paper')
    box(axes, 2.1, 2.2, 1.7, 0.6, 'engine/\ntaps, replays', '#ebf8ff')
    box(axes, 1.1, 1.2, 1.7, 0.6, 'functional/\ntensor maths', '#ebf8ff')
    box(axes, 0.1, 0.2, 1.7, 0.5, 'datasets/')
    box(axes, 2.1, 0.2, 1.7, 0.5, 'visualization/')
    for start, end in [
        ((0.95, 4.18), (1.6, 3.84)),
        ((1.84, 4.5), (2.06, 4.5)),
        ((1.6, 3.16), (1.0, 2.84)),
        ((2.3, 3.16), (2.9, 2.84)),
        ((1.84, 2.5), (2.06, 2.5)),
        ((1.0, 2.16), (1.6, 1.84)),
    ]:
        arrow(axes, start, end)
    axes.text(
        2.0, 0.98, 'blue: PyTorch only, no OpenMMLab package', ha='center', fontsize=8, color=GREY
    )
    axes.set(xlim=(0, 4), ylim=(0, 5.3), title='Rooms: arrows go down')


def draw_iteration(axes):
    box(axes, 0.1, 3.6, 0.9, 0.6, 'batch')
    box(axes, 1.5, 3.6, 1.6, 0.6, 'prefix')
    box(axes, 3.6, 3.6, 0.8, 0.6, 'tap', '#fefcbf')
    box(axes, 4.9, 3.6, 1.6, 0.6, 'tail')
    box(axes, 7.0, 3.6, 1.3, 0.6, 'clean loss')
    for x1, x2 in ((1.04, 1.46), (3.14, 3.56), (4.44, 4.86), (6.54, 6.96)):
        arrow(axes, (x1, 3.95), (x2, 3.95), CLEAN)
    arrow(axes, (6.96, 3.75), (6.54, 3.75), CLEAN, '--')
    arrow(axes, (4.86, 3.75), (4.44, 3.75), CLEAN, '--')
    arrow(axes, (3.56, 3.75), (3.14, 3.75), CLEAN, '--')
    axes.text(
        4.2,
        4.55,
        '1  record    2  one backward: every tap, every parameter',
        ha='center',
        fontsize=9,
        color=CLEAN,
    )
    box(axes, 1.5, 1.9, 1.6, 0.6, 'recorded results\n(detached)', size=8)
    box(axes, 3.6, 1.9, 0.8, 0.6, 'view k', '#feebc8')
    box(axes, 4.9, 1.9, 1.6, 0.6, 'tail again')
    box(axes, 7.0, 1.9, 1.3, 0.6, 'view loss')
    arrow(axes, (2.3, 3.56), (2.3, 2.54), GREY)
    arrow(axes, (4.0, 3.56), (4.0, 2.54), VIEW)
    axes.text(4.08, 3.0, '3  method: feature, gradient', fontsize=8, color=VIEW, ha='left')
    arrow(axes, (3.14, 1.93), (5.2, 1.88), GREY, '-', 0.25)
    axes.text(4.0, 1.35, 'skips', fontsize=8, color=GREY, ha='center')
    for x1, x2 in ((4.44, 4.86), (6.54, 6.96)):
        arrow(axes, (x1, 2.25), (x2, 2.25), VIEW)
    arrow(axes, (6.96, 2.05), (6.54, 2.05), VIEW, '--')
    box(axes, 4.9, 0.4, 1.6, 0.6, 'sum of parameter\ngradients', size=8)
    box(axes, 7.0, 0.4, 1.3, 0.6, 'loss dict\nto framework', size=8)
    arrow(axes, (5.7, 1.86), (5.7, 1.04), VIEW, '--')
    arrow(axes, (6.6, 3.56), (6.3, 1.04), CLEAN, '--', -0.25)
    arrow(axes, (6.54, 0.7), (6.96, 0.7), GREY)
    axes.text(
        2.0,
        0.7,
        '4  hand over: stock names, plus one loss a view',
        ha='center',
        fontsize=9,
        color=GREY,
    )
    axes.set(xlim=(0, 8.5), ylim=(0, 5.3), title='One iteration: solid forward, dashed backward')


figure = Figure(figsize=(13, 4.6), layout='constrained')
left, right = figure.subplots(1, 2, width_ratios=[1, 2])
draw_rooms(left)
draw_iteration(right)
for panel in (left, right):
    panel.axis('off')
figure.savefig(Path(__file__).with_name('design.png'), dpi=120)
