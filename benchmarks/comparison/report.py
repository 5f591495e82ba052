# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Tables and pictures of results/, written where the docs want them: between ``<!-- comparison:
NAME -->`` and ``<!-- /comparison -->``. ``python -m benchmarks.comparison.report [--check]``.
"""

import argparse
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from statistics import fmean
from typing import Any

from mmfeataug.evaluation import BENCHMARK, Difference, paired_difference, trained_on
from mmfeataug.evaluation import FAMILIES as ALL_FAMILIES

from .grid import ARMS, CARDS, LABELS, TESTBEDS

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
RESULTS, COSTS = HERE / 'results', HERE / 'costs.json'
PICTURED = {
    'bccd': ('detector', 'mAP50'),
    'camvid-240-long': ('segmentor', 'mIoU'),
    'digits-long': ('classifier', 'top-1'),
}
"""Test beds whose baseline is good, what they train, and its score."""
PICTURE = ROOT / 'docs' / 'images' / 'comparison.png'
FIGURES = ('clean', 'mPC', 'far', 'unseen')
NEAR = trained_on(dict(custom_hooks=[dict(type='mmfeataug.DistortImages')]))
MEANS = {
    'far': tuple(c for c in BENCHMARK if c not in NEAR),
    'unseen': tuple(c for c in ALL_FAMILIES['unseen'] if c not in NEAR),
    **{name: ALL_FAMILIES[name] for name in ('noise', 'blur', 'weather', 'digital')},
}
"""Means over corruptions, beside that of all 15. ``far`` and ``unseen`` are what ``DistortImages``
does not train near, of the 15 and of ours.
"""
MAIN = (
    'longer',
    'augmix',
    'np-0.75',
    'random',
    'afan',
    'reinject-spatial',
    'combined',
    'combined-half',
    'combined-half+longer',
    'combined+longer',
    'combined+np',
    'combined+afan',
    'combined+afan-fifth',
)
"""Arms of the summary and of the picture."""
EQUAL = (
    ('np-0.75', 'afan'),
    ('afan', 'longer'),
    ('afan', 'augmix'),
    ('afan', 'random'),
    ('afan-tail', 'afan'),
    ('reinject-spatial', 'afan'),
    ('combined-half', 'combined'),
    ('combined-quarter', 'combined-half'),
    ('combined-half+longer', 'combined-half'),
    ('combined-half+longer', 'longer'),
    ('combined+afan', 'combined+longer'),
    ('combined+afan-fifth', 'combined+epoch'),
    ('combined+afan-fifth', 'combined+longer'),
)
"""What a view is to be held against: no view, time, chance, a cheaper view; and a rate."""
TOGETHER = tuple(arm for arm in ARMS if arm.startswith('combined+'))
MARKED = re.compile(r'(<!-- comparison: (\S+) -->\n).*?(<!-- /comparison -->)', re.DOTALL)

Runs = dict[str, dict[int, dict[str, Any]]]
"""Arm, to seed, to its result."""
Text = Callable[[Difference | None], str]
"""How a difference is written."""


def read(part: str, bed: str) -> Runs:
    """Results of one study part and test bed."""
    found: Runs = {}
    for path in sorted((RESULTS / part / bed).glob('*.json')):
        result = json.loads(path.read_text())
        found.setdefault(result['arm'], {})[result['seed']] = result
    return found


def figure(bed: str, result: dict[str, Any], name: str) -> float:
    """One figure of a run, in percent: ``clean``, ``mPC`` or one of :data:`MEANS`."""
    figures = result['figures']
    value = (
        fmean([figures['corrupted'][c] for c in MEANS[name]]) if name in MEANS else figures[name]
    )
    # mAP of mmdet is a share, mIoU of mmseg in percent already.
    return 100 * value if TESTBEDS[bed].metric.startswith('pascal') else value


def alike(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two runs come from one kind of device and the same versions, as far as both say."""
    ours, theirs = (run.get('versions', {}) for run in (one, other))
    return all(ours[name] == theirs[name] for name in ours.keys() & theirs.keys())


def paired(bed: str, one: dict, other: dict, name: str) -> list[float]:
    """One arm minus another, for each seed that both have."""
    seeds = [s for s in sorted(set(one) & set(other)) if alike(one[s], other[s])]
    return [figure(bed, one[s], name) - figure(bed, other[s], name) for s in seeds]


def words(d: Difference | None) -> str:
    """``+3.7 (3.2 to 4.6), p 0.031, 6 pairs``; without p where they are too few for a test."""
    if d is None or not d.enough:
        return brief(d)
    text = f'{d.mean:+.1f} ({d.low:.1f} to {d.high:.1f}), p {d.p:.3f}, {d.n} pairs'
    return f'**{text}**' if d.sure else text


def brief(d: Difference | None) -> str:
    """``+3.7``, bold where it is sure; with the number of pairs where they are too few to say."""
    if d is None:
        return '-'
    text = f'{d.mean:+.1f}' if d.enough else f'{d.mean:+.1f} ({d.n})'
    return f'**{text}**' if d.sure else text


def cost_of(bed: str, arm: str) -> str:
    """Stock steps; those of a longer test bed are the same, a longer arm costs its length more."""
    costs = json.loads(COSTS.read_text()) if COSTS.exists() else {}
    own = ARMS[arm]
    known = costs.get(bed.removesuffix('-long'), {}) | costs.get(bed, {})
    for name, cost in known.items():
        if replace(ARMS[name], length=own.length) == own:
            return f'{cost * own.length / ARMS[name].length:.2f}'
    return '-'


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown."""
    lines = ['| ' + ' | '.join(head) + ' |', '|' + '---|' * len(head)]
    return '\n'.join(lines + ['| ' + ' | '.join(row) + ' |' for row in rows]) + '\n'


def label(arm: str) -> str:
    """What tables call an arm; settings that have two names have one label."""
    same = (text for name, text in LABELS.items() if ARMS[name] == ARMS[arm])
    return LABELS.get(arm) or next(same, arm)


def ordered(runs: Iterable[str]) -> list[str]:
    """Baseline first, then as in :data:`LABELS`, then by name."""
    known = list(LABELS.values())
    return sorted(
        runs, key=lambda a: (known.index(t) if (t := label(a)) in known else len(known), a)
    )


def means(bed: str, runs: dict[int, dict[str, Any]], names: Iterable[str] = FIGURES) -> list[str]:
    """Cells of a table: the scores of an arm, over all its seeds."""
    return [f'{fmean([figure(bed, r, name) for r in runs.values()]):.1f}' for name in names]


def differences(
    bed: str, runs: Runs, one: str, other: str, names: Iterable[str], text: Text = words
) -> list[str]:
    """Cells of a table: one arm minus another, seed by seed."""
    each = (paired(bed, runs[one], runs[other], name) for name in names)
    return [text(paired_difference(values)) for values in each]


def against(
    bed: str,
    other: str = 'baseline',
    arms: Sequence[str] | None = None,
    names: Sequence[str] = FIGURES,
    text: Text = words,
) -> str:
    """The scores of one arm, and the differences of others to it."""
    runs, head = read('test', bed), ('arm', 'cost', *names)
    if other not in runs:
        return table(head, ())
    first = f'{label(other)} ({len(runs[other])} seeds)'
    rows = [[first, cost_of(bed, other), *means(bed, runs[other], names)]]
    rows += [
        [label(arm), cost_of(bed, arm), *differences(bed, runs, arm, other, names, text)]
        for arm in ordered(runs)
        if arm != other and (arms is None or arm in arms)
    ]
    return table(head, rows)


def tune(bed: str) -> str:
    """Scores on the images that settings are chosen on."""
    runs, names = read('tune', bed), ('clean', 'mPC', *MEANS)
    rows = [
        [label(arm), str(len(runs[arm])), *means(bed, runs[arm], names)] for arm in ordered(runs)
    ]
    return table(('arm', 'seeds', *names), rows)


def summary() -> str:
    """What the main arms gain over the baseline, on one test bed of each task."""
    names = FIGURES[:3]
    beds = {bed: read('test', bed) for bed in PICTURED}
    head, first = ['', 'cost'], ['baseline, scores', '1.00']
    for bed, (task, _) in PICTURED.items():
        head += [f'{task}: {names[0]}', *names[1:]]
        first += means(bed, beds[bed]['baseline'], names)
    rows = [first]
    for arm in MAIN:
        row = [label(arm), next((cost_of(bed, arm) for bed in beds if arm in beds[bed]), '-')]
        for bed, runs in beds.items():
            if arm in runs:
                row += differences(bed, runs, arm, 'baseline', names, brief)
            else:
                row += ['-'] * len(names)
        rows.append(row)
    return table(head, rows)


def equal(bed: str) -> str:
    """Differences of arms that are to be held against each other."""
    runs = read('test', bed)
    rows = [
        [f'{label(one)} - {label(other)}', *differences(bed, runs, one, other, FIGURES)]
        for one, other in EQUAL
        if one in runs and other in runs
    ]
    return table(('difference', *FIGURES), rows)


def card(folder: str) -> str:
    """Head lines of a method: beside the baseline of the same seeds, on every test bed."""
    rows = []
    for bed in TESTBEDS:
        runs = read('test', bed)
        rows += [
            [bed, label(arm), cost_of(bed, arm), *differences(bed, runs, arm, 'baseline', FIGURES)]
            for arm in CARDS[folder]
            if arm in runs and 'baseline' in runs
        ]
    head = ('test bed', 'minus the baseline', 'cost', *FIGURES)
    return table(head, rows) if rows else 'Not in the comparison yet.\n'


def diagnosis() -> str:
    """What noise has to change so that a segmentor fails; means of seeds."""
    found: dict[str, list[dict[str, float]]] = {}
    for path in sorted((HERE / 'diagnosis').glob('*.json')):
        result = json.loads(path.read_text())
        found.setdefault(result['arm'], []).append(result['figures'])
    names = list(next(iter(found.values()))[0])
    rows = [
        [
            label(arm),
            str(len(found[arm])),
            *(f'{fmean([f[n] for f in found[arm]]):.1f}' for n in names),
        ]
        for arm in ordered(found)
    ]
    return table(('arm', 'seeds', *names), rows)


KINDS: dict[str, Callable[[str], str]] = {
    'baseline': against,
    'families': lambda bed: against(bed, names=list(MEANS)[2:], text=brief),
    'combined': lambda bed: against(bed, 'combined', TOGETHER),
    'equal': equal,
    'tune': tune,
    'card': card,
}
"""Parts of pages, of a test bed or of a folder of configs, which their names begin with."""


def part(name: str) -> str:
    """A part of a page, by its name, such as ``bccd-baseline``.

    Raises:
        KeyError: If there is none of this kind.
    """
    if name in ('summary', 'diagnosis'):
        return summary() if name == 'summary' else diagnosis()
    subject, _, kind = name.rpartition('-')
    return KINDS[kind](subject)


def rendered(text: str) -> str:
    """A page with its marked parts made anew.

    Raises:
        KeyError: For a name that :func:`part` does not know.
    """
    return MARKED.sub(lambda m: f'{m[1]}{part(m[2])}{m[3]}', text)


def pages() -> list[Path]:
    """All Markdown that may have marked parts."""
    return [
        ROOT / 'README.md',
        HERE / 'README.md',
        *sorted((ROOT / 'docs').glob('*.md')),
        *sorted((ROOT / 'configs').glob('*/README.md')),
    ]


def acts_on_features(arm: str) -> bool:
    """Whether a method of an arm acts behind a layer."""
    return any(a.get('at', 'inputs') != 'inputs' for a in ARMS[arm].augmentations)


def draw(path: Path) -> None:
    """What the main arms gain on clean images and in mPC, on one test bed of each task; small dots
    are pairs, hollow marks have too few of them for a test, red acts on features.
    """
    import matplotlib as mpl

    mpl.use('Agg')
    from matplotlib import pyplot as plt

    beds = {bed: read('test', bed) for bed in PICTURED}
    arms = [arm for arm in ordered(MAIN) if any(arm in runs for runs in beds.values())]
    colours = {arm: 'tab:red' if acts_on_features(arm) else 'dimgrey' for arm in arms}
    free = {colour: cycle('osD^vP*Xph<>dH8') for colour in colours.values()}
    shapes = {arm: next(free[colour]) for arm, colour in colours.items()}
    fig, axes = plt.subplots(1, len(beds), figsize=(5.0 * len(beds), 4.4), squeeze=False)
    fig.subplots_adjust(0.05, 0.34, 0.99, 0.92, 0.18)
    shown = {}
    for ax, (bed, runs) in zip(axes[0], beds.items(), strict=True):
        ax.axhline(0, color='grey', lw=0.8)
        ax.axvline(0, color='grey', lw=0.8)
        for arm in arms:
            x, y = (paired(bed, runs.get(arm, {}), runs['baseline'], f) for f in FIGURES[:2])
            if len(x) < 2:
                continue
            look = dict(color=colours[arm], ls='')
            filled = 'full' if paired_difference(x).enough else 'none'
            ax.plot(x, y, '.', alpha=0.3, ms=5, **look)
            ax.plot(fmean(x), fmean(y), shapes[arm], ms=8, fillstyle=filled, **look)
            (shown[arm],) = ax.plot([], [], shapes[arm], ms=8, label=label(arm), **look)
        ax.margins(0.08)
        task, metric = PICTURED[bed]
        ax.set(title=f'{task} ({bed})', xlabel=f'gain in clean {metric}', ylabel='gain in mPC')
        ax.grid(alpha=0.3)
    handles = [shown[arm] for arm in arms if arm in shown]
    fig.legend(handles=handles, loc='lower center', ncols=4, fontsize=9, frameon=False)
    fig.savefig(path, dpi=110)


def main() -> None:
    """Write, or check, all pages."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--check', action='store_true', help='say which pages would change')
    args = parser.parse_args()
    stale = []
    for path in pages():
        before = path.read_text()
        if (after := rendered(before)) != before:
            stale.append(str(path.relative_to(ROOT)))
            if not args.check:
                path.write_text(after)
    if not args.check:
        draw(PICTURE)
    print('changed: ' + (', '.join(stale) or 'nothing'))
    if args.check and stale:
        raise SystemExit('run make comparison-report')


if __name__ == '__main__':
    main()
