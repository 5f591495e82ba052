# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Evaluation under corruptions (mPC, rPC, mCE) and attacks, and comparison of runs."""

from mmfeataug.utils.corruptions import BENCHMARK, FAMILIES

from .attacks.adversarial import AdversarialTestLoop
from .attacks.attacked_batch import Target
from .attacks.attacks import ATTACKS
from .attacks.geometry import Geometry, Region, region_of
from .attacks.pgd import NORMS, PGD, UNITS
from .checkpoints import CheckpointCheck, load_fitting
from .comparison.compare import Comparison, Spread, compare_tables, spread
from .comparison.compare_attacks import AttackComparison, compare_attacks
from .comparison.image_bootstrap import image_differences
from .comparison.logs import Curve, Record, clean_loss, cost, method_scalars, view_losses
from .comparison.paired import Against, against
from .comparison.runs import Run, by_task, label_of, read_runs, seed_of
from .comparison.significance import Difference, over_images, paired_difference
from .comparison.trained_on import trained_on
from .corruptions.corruption import CorruptionTestLoop, conditions_of
from .corruptions.offline import evaluate_offline
from .corruptions.other_sets import read_other_sets
from .corruptions.run_table import RunTable, predictions_file, refuse_existing
from .predictions import PREDICTIONS, Predictions, read_predictions, saving
from .report import (
    main_metric,
    read_table,
    rows,
    summary_line,
    summary_rows,
    to_csv,
    to_markdown,
    write_table,
)
from .robustness import (
    ALL,
    SEVERITIES,
    complete,
    corruption_error,
    less_is_better,
    select_corruptions,
    summarise,
)
from .unfinished import RefusedError, fingerprint, read_reference

__all__ = [
    'ALL',
    'ATTACKS',
    'BENCHMARK',
    'FAMILIES',
    'NORMS',
    'PGD',
    'PREDICTIONS',
    'SEVERITIES',
    'UNITS',
    'AdversarialTestLoop',
    'Against',
    'AttackComparison',
    'CheckpointCheck',
    'Comparison',
    'CorruptionTestLoop',
    'Curve',
    'Difference',
    'Geometry',
    'Predictions',
    'Record',
    'RefusedError',
    'Region',
    'Run',
    'RunTable',
    'Spread',
    'Target',
    'against',
    'by_task',
    'clean_loss',
    'compare_attacks',
    'compare_tables',
    'complete',
    'conditions_of',
    'corruption_error',
    'cost',
    'evaluate_offline',
    'fingerprint',
    'image_differences',
    'label_of',
    'less_is_better',
    'load_fitting',
    'main_metric',
    'method_scalars',
    'over_images',
    'paired_difference',
    'predictions_file',
    'read_other_sets',
    'read_predictions',
    'read_reference',
    'read_runs',
    'read_table',
    'refuse_existing',
    'region_of',
    'rows',
    'saving',
    'seed_of',
    'select_corruptions',
    'spread',
    'summarise',
    'summary_line',
    'summary_rows',
    'to_csv',
    'to_markdown',
    'trained_on',
    'view_losses',
    'write_table',
]
