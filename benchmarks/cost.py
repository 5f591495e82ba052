# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What an augmented step costs, beside the stock step.

    python benchmarks/cost.py [--model faster-rcnn_r18 ...] [--variant ...] [--steps 12]

Times are CPU time at one thread, taken in one process. Each step of a variant stands between two
stock steps and is divided by their mean, so that other processes and a drift of the machine's speed
meet both alike; printed is the median over the rounds. Peak memory is what tensors of one step take
at most beside the model, as PyTorch's allocator sees it, in a fresh process for each variant,
divided by stock's.
``1 + K t`` is what contract 9 counts with: t is the share of the stock step behind the tap, by time
stamps in forward and backward.
"""

import argparse
import itertools
import json
import subprocess
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from mmengine.registry import init_default_scope
from rich.console import Console
from rich.table import Table

import mmfeataug
from mmfeataug.datasets.random_batch import random_batch
from mmfeataug.engine import Choice
from mmfeataug.engine.timing import tail_shares
from mmfeataug.hooks.budget import Budget

CONFIGS = Path(__file__).resolve().parents[1] / 'configs' / 'baseline'
# Name: config, ours or a package's own; tap; images, height and width.
MODELS = {
    'faster-rcnn_r18': ('faster-rcnn_r18_fpn_8e_bccd.py', 'backbone.layer2', 4, (256, 320)),
    'faster-rcnn_r18_roi': (
        'faster-rcnn_r18_fpn_8e_bccd.py',
        'roi_head.bbox_head.shared_fcs.1',
        4,
        (256, 320),
    ),
    'deeplabv3plus_r50': (
        'deeplabv3plus_r50-d8_4xb4-20k_voc12aug-512x512.py',
        'backbone.layer3',
        2,
        (128, 128),
    ),
    'deeplabv3plus_r18': (
        'deeplabv3plus_r18-d16_1xb4-800_camvid-192x256.py',
        'backbone.layer2',
        4,
        (192, 256),
    ),
    'mask-rcnn_r50': (
        'mmdet/mask_rcnn/mask-rcnn_r50_fpn_1x_coco.py',
        'backbone.layer2',
        2,
        (128, 160),
    ),
    'fcos_r50': (
        'mmdet/fcos/fcos_r50-caffe_fpn_gn-head_1x_coco.py',
        'backbone.layer3',
        2,
        (128, 160),
    ),
    'retinanet_r50': (
        'mmdet/retinanet/retinanet_r50_fpn_1x_coco.py',
        'backbone.layer3',
        2,
        (128, 160),
    ),
    'yolox_s': ('mmdet/yolox/yolox_s_8xb8-300e_coco.py', 'backbone.stage2', 2, (256, 256)),
    'rtmdet_tiny': ('mmdet/rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'neck', 2, (256, 256)),
    'segformer_b0': (
        'mmseg/segformer/segformer_mit-b0_8xb1-160k_cityscapes-1024x1024.py',
        'backbone.layers.1.2',
        2,
        (128, 128),
    ),
    'upernet_swin-t': (
        'mmseg/swin/swin-tiny-patch4-window7-in1k-pre_upernet_8xb2-160k_ade20k-512x512.py',
        'backbone.stages.1',
        2,
        (128, 128),
    ),
    'fcn_hr18': (
        'mmseg/hrnet/fcn_hr18_4xb2-40k_cityscapes-512x1024.py',
        'backbone.stage2',
        2,
        (128, 128),
    ),
}
ZOO = [name for name in MODELS if name not in ('faster-rcnn_r18_roi', 'deeplabv3plus_r18')]
VARIANTS = [
    'stock',
    *(f'{engine} K={k}' for engine in ('precomputed', 'graph', 're-run') for k in (1, 2, 4)),
]


def build(name: str):
    """The model in training mode, and a batch."""
    from mmengine.model import revert_sync_batchnorm
    from mmengine.registry import MODELS as REGISTRY

    config, _, images, size = MODELS[name]
    package, _, rest = config.partition('/')
    path = CONFIGS / config
    if rest:
        path = Path(find_spec(package).submodule_search_locations[0], '.mim', 'configs', rest)
    cfg = Config.fromfile(path)
    init_default_scope(cfg.default_scope)
    if 'size' in cfg.model.data_preprocessor:
        cfg.model.data_preprocessor.size = size
    torch.manual_seed(0)
    model = revert_sync_batchnorm(REGISTRY.build(cfg.model)).train()
    return model, random_batch(model, size, images)


def attach(model, name: str, variant: str):
    """The handle of a variant; None for stock."""
    if variant == 'stock':
        return None
    if ' K=' not in variant:
        import methods

        return methods.attach(model, name, variant)
    engine, k = variant.split(' K=')
    views = int(k)
    handle = mmfeataug.attach(
        model,
        [
            dict(
                type='AFAN',
                at=MODELS[name][1],
                strengths=[(i + 1) / views for i in range(views)],
                weight=0.5 / views,
            )
        ],
        clean_weight=0.5,
        engine='graph' if engine == 'graph' else 'precomputed',
    )
    if engine == 're-run':
        for place in handle._places:
            place.memoize, place.verified = False, True
    return handle


def step(model, batch) -> None:
    """Loss and backward, as the framework does them."""
    model.zero_grad(set_to_none=True)
    model.parse_losses(model.loss(*batch))[0].backward()


def time_variants(
    name: str, variants: list[str], rounds: int
) -> tuple[float, float, dict[str, float]]:
    """The share t, seconds of a stock step, and the time of each variant in stock steps."""
    model, batch = build(name)
    tap = MODELS[name][1]
    share = tail_shares(
        model,
        lambda: model.parse_losses(model.loss(*batch))[0],
        [tap],
        max(rounds, 5),
        time.process_time,
    )
    handles = {}
    for variant in variants:
        handle = handles[variant] = attach(model, name, variant)
        step(model, batch)
        if handle is not None:
            handle.detach()
    seconds, ratios = compare(model, batch, handles, rounds)
    return share[tap].share, seconds, ratios


def compare(model, batch, handles: dict, rounds: int) -> tuple[float, dict[str, float]]:
    """Seconds of a stock step, and the time of each handle's step in stock steps: medians over
    rounds in which every step stands between two stock steps.
    """

    def seconds(handle=None) -> float:
        """CPU time of a step."""
        if handle is not None:
            model.__dict__['loss'] = handle
        start = time.process_time()
        step(model, batch)
        taken = time.process_time() - start
        if handle is not None:
            handle.detach()
        return taken

    # The first ten steps of a handle with passes of its own watch what losses keep between calls:
    # here two do, for all.
    augmented = [handle for handle in handles.values() if handle is not None and handle._passes]
    for first in augmented[:1]:
        seconds(first)
        first._settings.loss_state._passes = 1
        seconds(first)
    for handle in augmented:
        handle._settings.loss_state = augmented[0]._settings.loss_state
    stock = [seconds()]
    ratios: dict[str, list[float]] = {name: [] for name in handles}
    for _ in range(rounds):
        for name, handle in handles.items():
            taken = seconds(handle)
            stock.append(seconds())
            ratios[name].append(2 * taken / (stock[-2] + stock[-1]))
    return median(stock), {name: median(each) for name, each in ratios.items()}


def peak_memory(name: str, variant: str) -> None:
    """Print the most memory that tensors of one step take beside the model, and the size of the
    gradients, in MiB.
    """
    model, batch = build(name)
    attach(model, name, variant)
    step(model, batch)
    model.zero_grad(set_to_none=True)
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step(model, batch)
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == '[memory]']
    events.sort(key=lambda e: e.start_ns())
    peak = max(itertools.accumulate(e.nbytes() for e in events))
    gradients = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    print(json.dumps([peak / 2**20, gradients / 2**20]))


def measure_memory(name: str, variant: str) -> tuple[float, float]:
    """:func:`peak_memory` in a fresh process."""
    size = map(str, MODELS[name][3])
    command = [sys.executable, __file__, '--peak', name, variant, '--size', *size]
    return tuple(
        json.loads(
            subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines()[
                -1
            ]
        )
    )


def average_in_budget(name: str, factor: float, iterations: int) -> tuple[float, str]:
    """Average cost of a step in stock steps under ``FeatureAugHook(budget=factor)``, its first
    measurements included, stock steps in between; and what was chosen.
    """
    model, batch = build(name)
    for _ in range(2):
        step(model, batch)
    handle = attach(model, name, 'precomputed K=4')
    handle.detach()
    budget = Budget(factor, handle.names, 0, time.process_time)
    spent = {'stock': 0.0, 'ours': 0.0}
    for i in range(iterations):
        for variant in spent:
            start = time.process_time()
            if variant == 'ours':
                turn = budget.begin(i)
                handle.enabled, handle.only = bool(turn), turn if isinstance(turn, Choice) else None
                model.__dict__['loss'] = handle
            step(model, batch)
            if variant == 'ours':
                handle.detach()
                budget.end(handle.weights, i, handle.parts)
            spent[variant] += time.process_time() - start
    return spent['ours'] / spent['stock'], str(budget.plan)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--model', nargs='+', choices=MODELS)
    parser.add_argument('--zoo', action='store_true', help='ten models, fast engine only')
    parser.add_argument(
        '--methods', nargs='*', metavar='NAME', help='these methods at their defaults; all if none'
    )
    parser.add_argument('--steps', type=int, default=12, help='rounds of all variants')
    parser.add_argument('--variant', nargs='+', choices=VARIANTS, default=VARIANTS)
    parser.add_argument(
        '--budget', type=float, metavar='FACTOR', help='average of 60 steps under this budget'
    )
    parser.add_argument('--no-memory', action='store_true')
    parser.add_argument(
        '--size', nargs=2, type=int, metavar=('HEIGHT', 'WIDTH'), help='of images; divisible by 32'
    )
    parser.add_argument('--peak', nargs=2, metavar=('MODEL', 'VARIANT'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.size:
        MODELS.update({k: (*v[:3], tuple(args.size)) for k, v in MODELS.items()})
    if args.peak:
        peak_memory(*args.peak)
        return
    if args.methods is not None:
        import methods

        console = Console(width=120)
        methods.show(args.steps, not args.no_memory, console, args.methods, args.model)
        return
    args.model = args.model or list(MODELS)[:3]
    if args.zoo:
        args.model, args.variant = ZOO, ['precomputed K=1', 'precomputed K=2']
    variants = ['stock', *(v for v in args.variant if v != 'stock')]
    console = Console(width=120)
    for name in args.model if args.budget else ():
        with console.status(f'{name}: 60 steps with a budget of {args.budget}'):
            average, plan = average_in_budget(name, args.budget, 60)
        console.print(f'{name}: average {average:.3f} stock steps; chosen: {plan}')
    for name in args.model if not args.budget else ():
        with console.status(f'{name}: {len(variants)} variants, {args.steps} rounds'):
            share, base, times = time_variants(name, variants, args.steps)
        title = f'{name} at {MODELS[name][1]}: stock step {base:.3f} s, t = {share:.3f}'
        table = Table(
            'variant',
            'time / stock',
            '1 + K t',
            'time / (1 + K t)',
            'peak / stock',
            'limit',
            title=title,
        )
        stock_memory = None
        for variant in variants:
            ratio = times[variant]
            bound = 1 + share * int(variant.split('K=')[1]) if 'K=' in variant else 1.0
            memory = limit = '-'
            if not args.no_memory:
                with console.status(f'{name}: memory of {variant}'):
                    grown, gradients = measure_memory(name, variant)
                stock_memory = stock_memory or grown
                memory, limit = (
                    f'{grown / stock_memory:.2f}',
                    f'{1.1 + gradients / stock_memory:.2f}',
                )
            table.add_row(
                variant, f'{ratio:.2f}', f'{bound:.2f}', f'{ratio / bound:.3f}', memory, limit
            )
        console.print(table)


if __name__ == '__main__':
    main()
