# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""One file a paper."""

from .afan import AFAN

__all__ = ['AFAN']
