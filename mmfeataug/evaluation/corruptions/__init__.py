# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Corruptions of a test set."""
