# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Attacks on a test set."""
