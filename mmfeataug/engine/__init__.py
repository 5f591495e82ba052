# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""A recorded loss, run again from named points of a network. Imports no framework.

To read it, go from the inside out: ``augmentation`` (what a method is), ``tap``, ``tape``,
``recording`` and ``replay`` (one pass, and the rest of it again), ``recorded_loss``; then
``views``, ``step`` and ``augmented_loss`` (one iteration, and the handle); then ``objective`` and
``gradients``; the guards (``guards``, ``loss_state``, ``exactness``, ``votes``, ``checks``) as they
come up; ``batch_augmentation`` and ``copies``, ``layers`` and ``auxiliary`` last.
"""

from .augmentation import (
    Augmentation,
    FeatureAugmentation,
    Tail,
    View,
)
from .augmented_loss import AugmentedLoss
from .auxiliary import OWN_MODULES, AuxiliaryNorms, has_auxiliary, norms_behind, stock_state_dict
from .batch import Batch
from .batch_augmentation import BatchAugmentation, CopyPass
from .checks import each_fault, is_sharded, raise_together
from .exactness import verify
from .guards import RandomState, is_dropout, no_autocast
from .layers import FeatureTransform
from .loss_state import LossState
from .objective import CARRIER
from .paths import TapError, build_each, find_module
from .recorded_loss import RecordedLoss
from .recording import record
from .replay import replay
from .settings import Choice, Outcome, Plan
from .tap import NotCalledError, Tap, patched
from .tape import Tape
from .timing import first_choices, tail_shares
from .votes import average_over_ranks

__all__ = [
    'CARRIER',
    'OWN_MODULES',
    'Augmentation',
    'AugmentedLoss',
    'AuxiliaryNorms',
    'Batch',
    'BatchAugmentation',
    'Choice',
    'CopyPass',
    'FeatureAugmentation',
    'FeatureTransform',
    'LossState',
    'NotCalledError',
    'Outcome',
    'Plan',
    'RandomState',
    'RecordedLoss',
    'Tail',
    'Tap',
    'TapError',
    'Tape',
    'View',
    'average_over_ranks',
    'build_each',
    'each_fault',
    'find_module',
    'first_choices',
    'has_auxiliary',
    'is_dropout',
    'is_sharded',
    'no_autocast',
    'norms_behind',
    'patched',
    'raise_together',
    'record',
    'replay',
    'stock_state_dict',
    'tail_shares',
    'verify',
]
