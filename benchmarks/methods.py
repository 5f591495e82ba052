# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The table of ``cost.py --methods``: every method at its default beside the stock step."""

import copy
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from statistics import median

from measure import build, compare, measure_memory, step
from rich.console import Console
from rich.table import Table

import mmfeataug
from mmfeataug.engine import Augmentation, AugmentedLoss, tail_shares
from mmfeataug.models import collect, declare
from mmfeataug.registry import AUGMENTATIONS
from mmfeataug.utils.results import print_table

EARLY = 'backbone.layer1'
CLASSIFIERS = {
    'faster-rcnn_r18': ('roi_head.bbox_head.fc_cls', dict(background=-1), ('rpn_head',)),
    'deeplabv3plus_r18': ('decode_head.conv_seg', {}, ()),
    'deeplabv3plus_r50': ('decode_head.conv_seg', {}, ()),
}
"""Where the classifier is, settings of SeA there, and what is held for comparisons of logits."""
SMALL = list(CLASSIFIERS)[:2]


@dataclass
class Method:
    """One row.

    Attributes:
        augmentation: Its config.
        limit: Time in stock steps that it may take, from the share t of a step behind its place.
        passes: What it runs, in words.
    """

    augmentation: dict
    limit: Callable[[float], float]
    passes: str


def methods(name: str, titles: Sequence[str] = ()) -> dict[str, Method]:
    """The rows of these titles for a model, or all if there are none."""
    classifier, sea, hold = CLASSIFIERS[name]
    compare = 'neck' if hold else classifier
    in_place = {
        'MixStyle': dict(type='MixStyle'),
        'DSU': dict(type='DSU'),
        'MoEx': dict(type='MoEx'),
        'pAdaIN': dict(type='PAdaIN'),
        'NP': dict(type='NormalizationPerturbation'),
        'NP+': dict(type='NormalizationPerturbation', plus=True),
    }
    rows = {
        'SeA': Method(
            dict(type='SeA', at=classifier, **sea), lambda t: 1.05, 'one view of the classifier'
        ),
        'A-FAN': Method(
            dict(type='AFAN', at=EARLY), lambda t: 1.05 * (1 + t), 'one view behind layer1'
        ),
        'L-ALFA': Method(
            dict(type='LALFA', at=EARLY),
            lambda t: 1.05 * (1 + 3 * t),
            'two evaluations and one view behind layer1',
        ),
        'AdvBN': Method(
            dict(type='AdvBN', at=EARLY, bn='separate'),
            lambda t: 1.05 * (1 + 7 * t),
            'six evaluations and one view behind layer1',
        ),
        'FMA': Method(dict(type='FMA'), lambda t: 2.1, 'the backbone on a copy'),
        'AdAutoMix': Method(
            dict(type='AdAutoMix', at='backbone.layer3', channels=128, samples=2, compare=compare),
            lambda t: 3.2,
            'teacher on the batch, without a graph; teacher on a mixture, gradient to the image '
            'only; network on a mixture; generator twice',
        ),
        'stability training': Method(
            dict(type='StabilityTraining', at=classifier, hold=hold),
            lambda t: 2.1,
            'a copy as far as the classifier',
        ),
        'AdvStyle': Method(dict(type='AdvStyle'), lambda t: 2.1, 'one view of the image'),
        'pixel attack': Method(
            dict(type='AFAN', at='inputs', unit='pixel', gamma=1.0, bn='separate'),
            lambda t: 3.15,
            'one evaluation and one view of the image',
        ),
    }
    if hold:
        pixels = dict(rows['pixel attack'].augmentation, against=[['cls'], ['bbox']])
        rows['Det-AdvProp'] = Method(
            pixels, lambda t: 1.05 * (4 + 2 / 3), 'two attacks, two forward passes, one view'
        )
    # Convolutions of up to four times the stem's map: it is held against a view of the image.
    rows['MRFP'] = Method(
        dict(type='MRFP', at='backbone.maxpool', prob=1.0), lambda t: 2.1, 'eight convolutions'
    )
    for title, settings in in_place.items():
        rows[title] = Method({**settings, 'at': EARLY, 'prob': 1.0}, lambda t: 1.03, 'none')
    return {title: row for title, row in rows.items() if not titles or title in titles}


def measure(
    name: str, rounds: int, rows: dict[str, Method]
) -> tuple[float, float, float, dict[str, float]]:
    """Shares t behind layer1 and before the classifier, seconds of a stock step, and the time of
    each method in stock steps.
    """
    model, batch = build(name)
    classifier = CLASSIFIERS[name][0]

    def loss():
        return model.parse_losses(model.loss(*batch))[0]

    shares = tail_shares(model, loss, [EARLY, classifier], max(rounds, 5), time.process_time)
    # Those that add parts to the model have one of their own.
    own = [title for title, method in rows.items() if needs_parts(method.augmentation)]
    groups = [[title for title in rows if title not in own], *([title] for title in own)]
    stock, ratios = [], {}
    for titles in filter(None, groups):
        model, batch = build(name)
        handles = {}
        for title in titles:
            handle = attach(model, rows[title])
            step(model, batch)
            handle.detach()
            handles[title] = handle
        seconds, found = compare(model, batch, handles, rounds)
        stock.append(seconds)
        ratios |= found
    return shares[EARLY].share, shares[classifier].share, median(stock), ratios


def show(
    rounds: int,
    memory: bool,
    as_json: bool,
    titles: Sequence[str] = (),
    names: Sequence[str] | None = None,
) -> None:
    """Measure and print, one table a model."""
    known = {title: None for name in CLASSIFIERS for title in methods(name)}
    if unknown := set(titles) - set(known):
        raise SystemExit(f'--methods {" ".join(unknown)}: choose from {", ".join(known)}')
    names = names or SMALL
    if unknown := set(names) - set(CLASSIFIERS):
        raise SystemExit(
            f'--methods --model {" ".join(unknown)}: choose from {", ".join(CLASSIFIERS)}'
        )
    for name in names:
        rows = methods(name, titles)
        if not rows:
            continue
        with Console(stderr=True).status(f'{name}: {len(rows)} methods, {rounds} rounds'):
            early, late, base, times = measure(name, rounds, rows)
        stock = None
        table = Table(
            *('method', 'additional passes', 'time / stock', 'limit', 'peak / stock'),
            title=f'{name}: stock step {base:.3f} s, t = {early:.3f} behind {EARLY}, '
            f'{late:.3f} from the classifier on',
        )
        if memory:
            stock, _ = measure_memory(name, 'stock')
        for title, method in rows.items():
            peak = f'{measure_memory(name, title)[0] / stock:.2f}' if stock else '-'
            limit = method.limit(late if title == 'SeA' else early)
            taken = f'{times[title]:.3f}'
            if 'prob' in method.augmentation:
                # Measured while it acts in every step.
                settings = {k: v for k, v in method.augmentation.items() if k != 'prob'}
                default = 1 + build_augmentation(settings).prob * (times[title] - 1)
                taken = f'{default:.3f} ({taken} at prob=1)'
            table.add_row(title, method.passes, taken, f'{limit:.2f}', peak)
        print_table(table, sys.stdout, as_json)


def attach(model, method: Method) -> AugmentedLoss:
    """Attach a method, with modules of its own and a teacher where it needs them: a copy of the
    model as it is now.
    """
    augmentation = build_augmentation(method.augmentation)
    teacher = copy.deepcopy(model).requires_grad_(False)
    if needs_parts(method.augmentation):
        # Marked as driven: steps of the stock model would warn.
        collect(declare(model, [method.augmentation]))
    handle = mmfeataug.attach(model, [augmentation])
    if handle.needs_teacher:
        handle.follow(teacher)
    return handle


def needs_parts(config: dict) -> bool:
    """Whether a method brings modules of its own, or second batch norms."""
    augmentation = build_augmentation(config)
    return augmentation.bn == 'separate' or bool(augmentation.modules())


def build_augmentation(config: dict) -> Augmentation:
    """Of a row."""
    return AUGMENTATIONS.build({'_scope_': 'mmfeataug', **config})
