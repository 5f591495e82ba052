# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""One page about any number of runs."""

from .page import Examples, write_report

__all__ = ['Examples', 'write_report']
