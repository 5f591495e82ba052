# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Runs beside each other: what their directories hold, differences, and how sure these are."""
