# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The HTML report that compares runs."""

from .page import Examples, write_report

__all__ = ['Examples', 'write_report']
