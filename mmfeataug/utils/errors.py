# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Exceptions behind exceptions."""


def root_cause(error: BaseException) -> BaseException:
    """What was raised first: registries raise anew what a class that they build raises."""
    while inner := error.__cause__ or (not error.__suppress_context__ and error.__context__):
        error = inner
    return error
