# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Read and compare runs: means over seeds, paired differences and their intervals."""
