# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Lets torchvision be imported where its compiled operators do not fit PyTorch.

A torchvision built for CUDA beside a CPU build of PyTorch cannot load its library, and its import
then fails for a shape rule of an operator that nobody declared. mmpretrain imports it for image
transforms that need no operator, and mmengine to print its version.
"""

import sys
from importlib.machinery import EXTENSION_SUFFIXES, FileFinder
from importlib.machinery import ExtensionFileLoader as Loader
from importlib.util import find_spec

import torch

SCHEMA = '(Tensor dets, Tensor scores, float iou_threshold) -> Tensor'
NAMES = ('nms', 'qnms')
"""Operators whose shape rules torchvision registers without a look at whether they exist."""


def declare_operators() -> bool:
    """Declare these operators if torchvision cannot load them itself; calls of them raise.

    Returns:
        Whether it was needed.
    """
    if 'torchvision' in sys.modules:
        return False
    spec = find_spec('torchvision')
    if spec is None or not spec.submodule_search_locations:
        return False
    library = FileFinder(spec.submodule_search_locations[0], (Loader, EXTENSION_SUFFIXES))
    extension = library.find_spec('_C')
    if extension is not None and extension.origin is not None:
        try:
            torch.ops.load_library(extension.origin)
            return False
        except OSError:
            pass
    missing = [n for n in NAMES if not hasattr(torch.ops.torchvision, n)]
    for name in missing:
        torch.library.define(f'torchvision::{name}', SCHEMA)
    return bool(missing)
