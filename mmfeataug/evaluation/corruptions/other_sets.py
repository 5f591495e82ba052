# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Additional test sets."""

import copy
import re
from collections.abc import Mapping
from dataclasses import dataclass

from mmengine.config import Config

from mmfeataug.utils.corruptions import ALL, FAMILIES

from ..unfinished import CLEAN, digest

NEEDED = ('test_dataloader', 'test_evaluator')
COLUMNS = ('P', 'mPC', 'rPC', 'worst', 'mCE', 'near', 'far', *FAMILIES)
"""Of tables, beside those of other sets."""


@dataclass(frozen=True)
class OtherSet:
    """Data and metrics of a test set.

    Attributes:
        cfg: Config that it is from.
        digest: Tells its text from others.
    """

    cfg: Config
    digest: str


def read_other_sets(also: Mapping[str, str]) -> dict[str, OtherSet]:
    """Read the test sets of configs.

    Args:
        also: Name of each set to its config file.

    Raises:
        ValueError: If a name cannot be one, or a config cannot be read or has no test set.
    """
    found = {}
    for name, path in also.items():
        # Files of conditions are called so.
        taken = re.fullmatch(rf'({"|".join((CLEAN[0], *ALL))})(_\d)?', name)
        if taken or name in COLUMNS or not re.fullmatch(r'[\w.-]+', name):
            raise ValueError(
                f'{name!r} is no name for a test set: take letters, digits, dots and dashes, and '
                f'no name of a corruption or column ({", ".join(COLUMNS)})'
            )
        try:
            cfg = Config.fromfile(path)
        except (OSError, ValueError, SyntaxError) as error:
            raise ValueError(f'{name}: {path} cannot be read: {error}') from None
        if missing := [key for key in NEEDED if cfg.get(key) is None]:
            raise ValueError(f'{name}: {path} has no {", ".join(missing)}')
        text = copy.deepcopy(Config({key: cfg[key] for key in NEEDED}))
        found[name] = OtherSet(cfg, digest(text))
    return found
