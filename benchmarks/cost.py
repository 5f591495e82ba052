# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What an augmented step costs, beside the stock step.

    python benchmarks/cost.py [--model faster-rcnn_r18 ...] [--variant ...] [--steps 12]

Times are CPU time at one thread (``--device cuda``: between events), taken in one process. A step
of a variant stands between two stock steps and is divided by their mean, so that other processes
and a drift of the machine meet both alike; printed is the median over the rounds. Peak
memory is what tensors of one step take at most beside the model, as PyTorch's allocator sees it, in
a fresh process for each variant on a CPU, divided by stock's. On a GPU it is also counted how often
the host waits for it, per view, beyond the stock step.
``1 + K t`` is what contract 9 counts with: t is the share of the stock step behind the tap, by time
stamps in forward and backward.
"""

import argparse
import json
import sys

import methods
import torch
from measure import MODELS, build, clock, compare, measure_memory, peak_of, step, waits_of
from rich.console import Console
from rich.table import Table

import mmfeataug
from mmfeataug.engine import Choice, Plan, tail_shares
from mmfeataug.hooks import Budget
from mmfeataug.utils.results import print_table

ZOO = [name for name in MODELS if name not in ('faster-rcnn_r18_roi', 'deeplabv3plus_r18')]
LEARN = ('tail', 'skips', 'network')
VARIANTS = ['stock', *(f'{kind} K={k}' for kind in (*LEARN, 're-run') for k in (1, 2, 4))]
"""Who learns from K views; ``re-run`` is ``tail`` without recorded results."""


def attach(model, name: str, variant: str):
    """The handle of a variant; None for stock."""
    if variant == 'stock':
        return None
    if ' K=' not in variant:
        return methods.attach(model, methods.methods(name)[variant])
    kind, k = variant.split(' K=')
    views = int(k)
    handle = mmfeataug.attach(
        model,
        [
            dict(
                type='AFAN',
                at=MODELS[name][1],
                strengths=[(i + 1) / views for i in range(views)],
                weight=0.5 / views,
                learn=kind if kind in LEARN else 'tail',
            )
        ],
        clean_weight=0.5,
    )
    if kind == 're-run':
        for tap in handle.taps:
            tap.memoize, tap.verified = False, True
    return handle


def time_variants(
    name: str, variants: list[str], rounds: int, device: str, checkpointing: bool
) -> tuple[float, float, dict[str, float], dict[str, tuple]]:
    """The share t, seconds of a stock step, the time of each variant in stock steps; on a GPU, also
    how often the host waits for it in a step of each, and what :func:`peak_memory` finds.
    """
    model, batch = build(name, device, checkpointing)
    tap = MODELS[name][1]
    share = tail_shares(
        model,
        lambda: model.parse_losses(model.loss(*batch))[0],
        [tap],
        max(rounds, 5),
        clock(device),
    )
    handles, on_gpu = {}, {}
    for variant in variants:
        handle = handles[variant] = attach(model, name, variant)
        if handle is not None:
            handle.detach()
    seconds, ratios = compare(model, batch, handles, rounds, device)
    for variant, handle in handles.items() if device != 'cpu' else ():
        if handle is not None:
            model.__dict__['loss'] = handle
        waits = waits_of(lambda: step(model, batch), device)
        on_gpu[variant] = waits, *peak_memory(model, batch, device)
        if handle is not None:
            handle.detach()
    return share[tap].share, seconds, ratios, on_gpu


def peak_memory(model, batch, device: str = 'cpu') -> tuple[float, float]:
    """The most memory that tensors of one step take beside the model, and the size of the
    gradients, in MiB.
    """
    step(model, batch)
    model.zero_grad(set_to_none=True)
    peak = peak_of(lambda: step(model, batch), device)
    gradients = sum(p.numel() * p.element_size() for p in model.parameters() if p.requires_grad)
    return peak / 2**20, gradients / 2**20


def average_in_budget(name: str, factor: float, iterations: int, device: str) -> tuple[float, str]:
    """Average cost of a step in stock steps under ``FeatureAugHook(budget=factor)``, its first
    measurements included, stock steps in between; and what was chosen.
    """
    model, batch = build(name, device)
    for _ in range(2):
        step(model, batch)
    handle = attach(model, name, 'tail K=4')
    handle.detach()
    now = clock(device)
    budget = Budget(factor, handle.names, 0, now)
    spent = {'stock': 0.0, 'ours': 0.0}
    for i in range(iterations):
        for variant in spent:
            start = now()
            if variant == 'ours':
                choice = budget.begin(i)
                only = choice if isinstance(choice, Choice) else None
                handle.plan = Plan(i, bool(choice), only=only)
                model.__dict__['loss'] = handle
            step(model, batch)
            if variant == 'ours':
                handle.detach()
                budget.end(handle.outcome.weights, i)
            if device != 'cpu':
                torch.cuda.synchronize()
            spent[variant] += now() - start
    return spent['ours'] / spent['stock'], str(budget.allowance)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument('--model', nargs='+', choices=MODELS)
    parser.add_argument('--zoo', action='store_true', help='ten models, one and two views')
    parser.add_argument(
        '--methods', nargs='*', metavar='NAME', help='these methods at their defaults; all if none'
    )
    parser.add_argument('--steps', type=int, default=12, help='rounds of all variants')
    parser.add_argument('--variant', nargs='+', choices=VARIANTS, default=VARIANTS)
    parser.add_argument(
        '--learn', nargs='+', choices=LEARN, help='variants in which views teach so, K = 1, 2, 4'
    )
    parser.add_argument(
        '--budget', type=float, metavar='FACTOR', help='average of 60 steps under this budget'
    )
    parser.add_argument('--no-memory', action='store_true')
    parser.add_argument('--device', choices=('cpu', 'cuda'), default='cpu')
    parser.add_argument(
        '--checkpointing', action='store_true', help='with_cp=True, in the stock steps too'
    )
    parser.add_argument('--json', action='store_true', help='tables as JSON lines')
    parser.add_argument(
        '--size', nargs=2, type=int, metavar=('HEIGHT', 'WIDTH'), help='of images; divisible by 32'
    )
    parser.add_argument('--peak', nargs=2, metavar=('MODEL', 'VARIANT'), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    if args.size:
        MODELS.update({k: (*v[:3], tuple(args.size)) for k, v in MODELS.items()})
    if args.peak:
        model, batch = build(args.peak[0], checkpointing=args.checkpointing)
        attach(model, *args.peak)
        print(json.dumps(peak_memory(model, batch)))
        return
    if args.methods is not None:
        if args.device != 'cpu' or args.checkpointing:
            parser.error('--methods are measured on a CPU, without --checkpointing')
        methods.show(args.steps, not args.no_memory, args.json, args.methods, args.model)
        return
    args.model = args.model or list(MODELS)[:3]
    if args.zoo:
        args.model, args.variant = ZOO, ['tail K=1', 'network K=1', 'tail K=2']
    if args.learn:
        args.variant = [v for v in VARIANTS if v.split(' ')[0] in args.learn]
    variants = ['stock', *(v for v in args.variant if v != 'stock')]
    console, log = Console(width=120), Console(stderr=True)
    for name in args.model if args.budget else ():
        with log.status(f'{name}: 60 steps with a budget of {args.budget}'):
            average, plan = average_in_budget(name, args.budget, 60, args.device)
        console.print(f'{name}: average {average:.3f} stock steps; chosen: {plan}')
    for name in args.model if not args.budget else ():
        with log.status(f'{name}: {len(variants)} variants, {args.steps} rounds'):
            share, base, times, on_gpu = time_variants(
                name, variants, args.steps, args.device, args.checkpointing
            )
        title = f'{name} at {MODELS[name][1]}: stock step {base:.3f} s, t = {share:.3f}'
        title += ', with_cp' * args.checkpointing
        table = Table(
            'variant',
            'time / stock',
            'limit of time',
            '1 + K t',
            'peak / stock',
            'limit of peak',
            *['waits per view'] * (args.device != 'cpu'),
            title=title,
        )
        stock_memory = None
        for variant in variants:
            ratio = times[variant]
            bound = 1 + share * int(variant.split('K=')[1]) if 'K=' in variant else 1.0
            memory = limit = '-'
            if not args.no_memory:
                if on_gpu:
                    grown, gradients = on_gpu[variant][1:]
                else:
                    with log.status(f'{name}: memory of {variant}'):
                        grown, gradients = measure_memory(name, variant, args.checkpointing)
                stock_memory = stock_memory or grown
                memory, limit = (
                    f'{grown / stock_memory:.2f}',
                    f'{1.1 + gradients / stock_memory:.2f}',
                )
            most = 1.05 * bound + 0.05 * variant.startswith('network')
            cells = [variant, f'{ratio:.2f}', f'{most:.2f}', f'{bound:.2f}', memory, limit]
            if args.device != 'cpu':
                views = int(variant.split('K=')[1]) if 'K=' in variant else 1
                cells.append(f'{(on_gpu[variant][0] - on_gpu["stock"][0]) / views:.1f}')
            table.add_row(*cells)
        print_table(table, sys.stdout, args.json)


if __name__ == '__main__':
    main()
