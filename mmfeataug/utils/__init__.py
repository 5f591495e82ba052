# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Small helpers that several rooms share, one file each.

Nothing is imported here, so that ``import mmfeataug`` stays cheap: other rooms import the files
themselves.
"""
