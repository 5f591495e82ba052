# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What several processes agree on."""

from typing import TypeVar

from mmengine.dist import broadcast_object_list

T = TypeVar('T')


def of_first_process(value: T) -> T:
    """What the first process has, on all of them: they may see other disks and seeds."""
    shared = [value]
    broadcast_object_list(shared)
    return shared[0]
