# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What corruptions (mPC, rPC, mCE) and attacks cost a model, and the files that say so."""

from mmfeataug.utils.corruptions import BENCHMARK, FAMILIES

from .adversarial import AdversarialTestLoop
from .compare import compare_tables
from .compare_attacks import compare_attacks
from .report import read_table, rows, to_csv, to_markdown, write_table
from .robustness import (
    SEVERITIES,
    complete,
    corruption_error,
    select_corruptions,
    summarise,
)
from .runs import read_runs

__all__ = [
    'BENCHMARK',
    'FAMILIES',
    'SEVERITIES',
    'AdversarialTestLoop',
    'compare_attacks',
    'compare_tables',
    'complete',
    'corruption_error',
    'read_runs',
    'read_table',
    'rows',
    'select_corruptions',
    'summarise',
    'to_csv',
    'to_markdown',
    'write_table',
]
