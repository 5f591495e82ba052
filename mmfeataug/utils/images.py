# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What an image is called, and draws that depend on that alone."""

import hashlib
from collections.abc import Mapping
from typing import Any

KEYS = ('img_path', 'img_id', 'sample_idx')
"""Of the metadata of an image, the first that is there names it."""


def image_key(info: Mapping[str, Any]) -> str:
    """Name of an image: its path, or its number where it has none.

    Args:
        info: Metadata, or what a step of a pipeline is given.

    Raises:
        ValueError: If none of :data:`KEYS` is there.
    """
    for key in KEYS:
        if info.get(key) is not None:
            return str(info[key])
    raise ValueError(
        f'an image is named by img_path, img_id or sample_idx, of which {sorted(info)} has none: '
        'load images by LoadImageFromFile, and leave one of these in meta_keys'
    )


def seed_from(*words: object) -> int:
    """Seed in [0, 2**32) that depends on these words alone."""
    digest = hashlib.sha256('|'.join(map(str, words)).encode()).digest()
    return int.from_bytes(digest[:4], 'little')
