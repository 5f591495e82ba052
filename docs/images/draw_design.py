# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Draws ``design.png``: the packages, and the data flow of one iteration.

Run: python -m docs.images.draw_design
"""

from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch

from tests.test_structure import BELOW

CLEAN, VIEW, PLAIN, GREY, CUT = '#2b6cb0', '#c05621', '#edf2f7', '#718096', '#2f855a'


def box(axes, x, y, width, height, text, face=PLAIN, edge=GREY, size=9):
    axes.add_patch(
        FancyBboxPatch(
            (x, y),
            width,
            height,
            boxstyle='round,pad=0.02',
            facecolor=face,
            edgecolor=edge,
            zorder=3,
        )
    )
    axes.text(
        x + width / 2, y + height / 2, text, ha='center', va='center', fontsize=size, zorder=4
    )


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


ROOMS = {
    'hooks': (2.1, 5, 'schedule, budget, logging'),
    'visualization': (2.1, 4, 'pictures, report'),
    'api': (0.5, 2, 'attach()'),
    'evaluation': (2.6, 3, 'corruptions, attacks, comparison of runs'),
    'methods': (1.6, 2, 'augmentations'),
    'models': (2.7, 2, 'wrappers, losses'),
    'datasets': (3.8, 2, 'corrupted, demo'),
    'engine': (0.8, 1, 'recorded loss, replays'),
    'functional': (2.1, 1, 'tensor functions'),
    'registry': (3.5, 1, 'scope mmfeataug'),
    'utils': (2.1, 0, 'shared helpers'),
}
"""Centre, floor and content of each room."""
HEIGHT, STEP = 0.44, 0.92


def reduced(below):
    """Arrows that no chain of others implies; ``below`` holds all that are allowed."""
    return [
        (room, other)
        for room, others in below.items()
        for other in sorted(others & ROOMS.keys())
        if not any(other in below.get(between, ()) for between in others)
    ]


def draw_rooms(axes):
    for name, (x, floor, what) in ROOMS.items():
        blue = '#ebf8ff' if name in ('engine', 'functional') else PLAIN
        width = 1.0 if floor == 2 else 1.2
        width = 1.9 if name in ('hooks', 'evaluation') else width
        text = f'{name}\n{what}'
        box(axes, x - width / 2, STEP * floor, width, HEIGHT, text, blue, size=6.5)
    for start, end in reduced(BELOW):
        (x1, floor1, _), (x2, floor2, _) = ROOMS[start], ROOMS[end]
        x1 += 0.25 * max(-1.0, min(1.0, x2 - x1))
        arrow(axes, (x1, STEP * floor1 - 0.04), (x2, STEP * floor2 + HEIGHT + 0.05))
    axes.text(
        2.1,
        -0.35,
        'blue: no library but PyTorch (engine: and NumPy); arrows implied by others are left out',
        ha='center',
        fontsize=6.5,
        color=GREY,
    )
    axes.set(xlim=(-0.1, 4.4), ylim=(-0.4, 5.2), title='Packages: allowed imports')


def draw_iteration(axes):
    box(axes, 0.1, 3.6, 0.9, 0.6, 'batch')
    box(axes, 1.5, 3.6, 1.6, 0.6, 'prefix')
    box(axes, 3.9, 3.6, 0.8, 0.6, 'tap', '#fefcbf')
    box(axes, 5.2, 3.6, 1.6, 0.6, 'tail')
    box(axes, 7.3, 3.6, 1.3, 0.6, 'clean loss')
    for x1, x2 in ((1.04, 1.46), (3.14, 3.86), (4.74, 5.16), (6.84, 7.26)):
        arrow(axes, (x1, 3.95), (x2, 3.95), CLEAN)
    arrow(axes, (7.26, 3.75), (6.84, 3.75), CLEAN, '--')
    arrow(axes, (5.16, 3.75), (4.74, 3.75), CLEAN, '--')
    axes.plot([3.5, 3.5], [2.75, 4.35], color=CUT, linewidth=2)
    axes.text(3.5, 4.42, 'cut', ha='center', fontsize=9, color=CUT)
    axes.text(
        5.6,
        4.85,
        '1  record    2  clean gradient, as far as the cut',
        ha='center',
        fontsize=9,
        color=CLEAN,
    )
    box(axes, 1.5, 1.9, 1.6, 0.6, 'recorded results', size=8)
    box(axes, 3.9, 1.9, 0.8, 0.6, 'view k', '#feebc8')
    box(axes, 5.2, 1.9, 1.6, 0.6, 'tail again')
    box(axes, 7.3, 1.9, 1.3, 0.6, 'view loss')
    arrow(axes, (2.0, 3.56), (2.0, 2.54), GREY)
    arrow(axes, (4.3, 3.56), (4.3, 2.54), VIEW)
    axes.text(4.38, 3.0, '3  method: feature, gradient', fontsize=8, color=VIEW, ha='left')
    arrow(axes, (3.14, 1.93), (5.5, 1.88), GREY, '-', 0.25)
    axes.text(4.3, 1.35, 'skips', fontsize=8, color=GREY, ha='center')
    for x1, x2 in ((4.74, 5.16), (6.84, 7.26)):
        arrow(axes, (x1, 2.25), (x2, 2.25), VIEW)
    arrow(axes, (7.26, 2.05), (6.84, 2.05), VIEW, '--')
    arrow(axes, (3.86, 2.3), (3.56, 2.75), VIEW, '--')
    axes.text(
        3.42,
        2.85,
        "learn='network':\ngradients add\nup at the cut",
        fontsize=7.5,
        color=CUT,
        ha='right',
    )
    arrow(axes, (3.46, 3.7), (3.14, 3.75), CUT, '--')
    axes.text(0.1, 2.9, '4  one backward pass\nof the prefix', fontsize=8, color=CUT, ha='left')
    box(axes, 5.2, 0.4, 1.6, 0.6, 'sum of parameter\ngradients', size=8)
    box(axes, 7.3, 0.4, 1.3, 0.6, 'loss dict\nto framework', size=8)
    arrow(axes, (6.0, 1.86), (6.0, 1.04), VIEW, '--')
    arrow(axes, (6.9, 3.56), (6.6, 1.04), CLEAN, '--', -0.25)
    arrow(axes, (1.53, 3.56), (5.16, 0.75), CUT, '--', 0.5)
    arrow(axes, (6.84, 0.7), (7.26, 0.7), GREY)
    axes.text(
        0.1,
        0.25,
        '5  loss dict: stock names, one loss per view,\none term that carries all gradients',
        ha='left',
        fontsize=9,
        color=GREY,
    )
    axes.set(xlim=(0, 8.8), ylim=(-0.1, 5.3), title='One iteration: solid forward, dashed backward')


figure = Figure(figsize=(14, 5.0), layout='constrained')
left, right = figure.subplots(1, 2, width_ratios=[1.1, 2])
draw_rooms(left)
draw_iteration(right)
for panel in (left, right):
    panel.axis('off')
figure.savefig(Path(__file__).with_name('design.png'), dpi=120)
