# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Adversarial feature augmentation for detectors, segmentors and classifiers of OpenMMLab.

Importing this package is cheap: it loads neither torch nor any OpenMMLab package before a name is
used.
"""

from importlib import import_module
from typing import Any

from .utils.environment import check_environment
from .version import __version__

check_environment()

_LAZY = {'attach': '.api', 'functional': '.functional'}

__all__ = ['__version__', 'attach', 'functional']


def __getattr__(name: str) -> Any:
    if name not in _LAZY:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    module = import_module(_LAZY[name], __name__)
    return module if name == 'functional' else getattr(module, name)
