# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""How a step is measured beside the stock step: models, times, memory, waits of the host."""

import itertools
import json
import subprocess
import sys
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from statistics import median

import torch
from mmengine.config import Config
from mmengine.model import revert_sync_batchnorm
from mmengine.registry import MODELS as REGISTRY
from mmengine.registry import init_default_scope

from mmfeataug.datasets import random_batch
from mmfeataug.engine import LossState

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


def build(name: str, device: str = 'cpu', checkpointing: bool = False):
    """The model in training mode, and a batch."""
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
    model = revert_sync_batchnorm(REGISTRY.build(cfg.model)).to(device).train()
    if checkpointing:
        switches = [m for m in model.modules() if hasattr(m, 'with_cp')]
        if not switches:
            raise SystemExit(f'--checkpointing: {name} has no with_cp')
        for module in switches:
            module.with_cp = True
    return model, random_batch(model, size, images)


def seconds_of(work: Callable[[], object], device: str) -> float:
    """CPU time at one thread, or between two events on a GPU."""
    if device == 'cpu':
        start = time.process_time()
        work()
        return time.process_time() - start
    start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    work()
    end.record()
    end.synchronize()
    return start.elapsed_time(end) / 1000


def clock(device: str) -> Callable[[], float]:
    """Seconds as :func:`seconds_of` counts them, for whoever waits for the GPU himself."""
    return time.process_time if device == 'cpu' else time.perf_counter


def peak_of(work: Callable[[], object], device: str) -> float:
    """The most bytes that tensors take meanwhile beside what is there, as the allocator sees it."""
    if device != 'cpu':
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        work()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        work()
    events = [e for e in profile.profiler.kineto_results.events() if e.name() == '[memory]']
    events.sort(key=lambda e: e.start_ns())
    return max(itertools.accumulate(e.nbytes() for e in events))


def waits_of(work: Callable[[], object], device: str) -> int | None:
    """How often the host waits for the GPU meanwhile; None on a CPU."""
    if device == 'cpu':
        return None
    torch.cuda.set_sync_debug_mode('warn')
    try:
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter('always')
            work()
    finally:
        torch.cuda.set_sync_debug_mode('default')
    return sum('synchronizing CUDA operation' in str(w.message) for w in caught)


def step(model, batch) -> None:
    """Loss and backward, as the framework does them."""
    model.zero_grad(set_to_none=True)
    model.parse_losses(model.loss(*batch))[0].backward()


def compare(
    model, batch, handles: dict, rounds: int, device: str = 'cpu'
) -> tuple[float, dict[str, float]]:
    """Seconds of a stock step, and the time of each handle's step in stock steps: medians over
    rounds in which every step stands between two stock steps.
    """

    def seconds(handle=None) -> float:
        if handle is not None:
            model.__dict__['loss'] = handle
        taken = seconds_of(lambda: step(model, batch), device)
        if handle is not None:
            handle.detach()
        return taken

    # The first step of a handle with passes of its own finds out what losses keep between calls:
    # here one does, for all.
    shared = LossState(model)
    augmented = [h for h in handles.values() if h is not None and (h.taps or h.copy_taps)]
    for handle in augmented:
        handle.loss_state = shared
    for _ in range(2 if augmented else 0):
        seconds(augmented[0])
    stock = [seconds()]
    ratios: dict[str, list[float]] = {name: [] for name in handles}
    for _ in range(rounds):
        for name, handle in handles.items():
            taken = seconds(handle)
            stock.append(seconds())
            ratios[name].append(2 * taken / (stock[-2] + stock[-1]))
    return median(stock), {name: median(each) for name, each in ratios.items()}


def measure_memory(name: str, variant: str, checkpointing: bool = False) -> tuple[float, float]:
    """Peak of a step on a CPU, and the size of the gradients, in MiB, in a fresh process."""
    size = map(str, MODELS[name][3])
    script = Path(__file__).with_name('cost.py')
    command = [sys.executable, str(script), '--peak', name, variant]
    command += ['--checkpointing'] * checkpointing + ['--size', *size]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return tuple(json.loads(done.stdout.splitlines()[-1]))
