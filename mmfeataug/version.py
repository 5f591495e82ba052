# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The version, and nothing else: ``setup.py`` reads this file without importing the package."""

__version__ = '0.1.0'
