# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What corruptions (mPC, rPC, mCE) and attacks cost a model, and the files that say so."""

from .adversarial import AdversarialTestLoop
from .report import read_table, rows, to_csv, to_markdown, write_table
from .robustness import (
    BENCHMARK,
    FAMILIES,
    SEVERITIES,
    complete,
    corruption_error,
    select_corruptions,
    summarise,
)

__all__ = [
    'BENCHMARK',
    'FAMILIES',
    'SEVERITIES',
    'AdversarialTestLoop',
    'complete',
    'corruption_error',
    'read_table',
    'rows',
    'select_corruptions',
    'summarise',
    'to_csv',
    'to_markdown',
    'write_table',
]
