# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Registries of scope ``mmfeataug``.

Each is a child of mmengine's root registry of the same name. A scoped type such as
``type='mmfeataug.FeatureAugHook'`` imports this module and the locations below by itself, so a
config needs no ``custom_imports``.
"""

from mmengine.registry import HOOKS as MMENGINE_HOOKS
from mmengine.registry import LOOPS as MMENGINE_LOOPS
from mmengine.registry import MODELS as MMENGINE_MODELS
from mmengine.registry import TRANSFORMS as MMENGINE_TRANSFORMS
from mmengine.registry import Registry

from .utils.torchvision import declare_operators

# Here, because whatever a config or a script takes from this package comes through here.
declare_operators()

HOOKS = Registry('hook', parent=MMENGINE_HOOKS, scope='mmfeataug', locations=['mmfeataug.hooks'])
LOOPS = Registry(
    'loop', parent=MMENGINE_LOOPS, scope='mmfeataug', locations=['mmfeataug.evaluation']
)
MODELS = Registry(
    'model', parent=MMENGINE_MODELS, scope='mmfeataug', locations=['mmfeataug.models']
)
TRANSFORMS = Registry(
    'transform', parent=MMENGINE_TRANSFORMS, scope='mmfeataug', locations=['mmfeataug.datasets']
)
AUGMENTATIONS = Registry('augmentation', scope='mmfeataug', locations=['mmfeataug.methods'])
"""Methods, one file per paper in ``mmfeataug/methods``."""
