# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""One clear message about packages that are missing, doubled or too old, instead of a strange one
later.
"""

import re
import warnings
from collections.abc import Callable
from importlib import metadata
from importlib.util import find_spec

MIN_TORCH = (2, 1)
"""The oldest that is tested."""
REMEDY = (
    'pip install torch==2.13.0 for the continued packages, torch==2.1.2 "numpy<2" for the '
    'original ones'
)
# Import name -> the two distributions that provide it. They overwrite each other's files.
FAMILIES = {
    'mmengine': ('onedl-mmengine', 'mmengine'),
    'mmcv': ('onedl-mmcv', 'mmcv'),
    'mmdet': ('onedl-mmdetection', 'mmdet'),
    'mmseg': ('onedl-mmsegmentation', 'mmsegmentation'),
    'mmpretrain': ('onedl-mmpretrain', 'mmpretrain'),
}


def missing_operators(
    scope: str | None, find: Callable[[str], object | None] = find_spec
) -> str | None:
    """What to install where the models of a scope need compiled operators and there are none; None
    where nothing is missing.

    Args:
        scope: ``default_scope`` of a config.
        find: Looks for a module by its name.
    """
    if scope != 'mmdet':
        return None
    try:
        if find('mmcv._ext') is not None:
            return None
    except ModuleNotFoundError:
        pass
    return (
        f"default_scope={scope!r} needs mmcv's compiled operators (mmcv._ext), which mmcv-lite "
        'does not have: pip uninstall mmcv-lite, then pip install --no-build-isolation onedl-mmcv '
        'onedl-mmdetection; classification (mmpretrain) and most segmentors (mmseg) need none'
    )


def check_environment(version: Callable[[str], str] = metadata.version) -> None:
    """Look at what is installed, without importing any of it.

    Args:
        version: Returns the installed version of a distribution or raises ``PackageNotFoundError``.

    Raises:
        ImportError: If PyTorch is missing or too old, or mmengine is missing.
    """

    def find(name: str) -> str | None:
        try:
            return version(name)
        except metadata.PackageNotFoundError:
            return None

    torch = find('torch')
    found = tuple(int(n) for n in re.findall(r'\d+', torch or '')[:2])
    if found < MIN_TORCH:
        raise ImportError(
            f'mmfeataug needs PyTorch {".".join(map(str, MIN_TORCH))} or newer, found '
            f'{torch or "none"}: {REMEDY}'
        )
    if not any(find(name) for name in (*FAMILIES['mmengine'], 'mmengine-lite')):
        raise ImportError(
            'mmfeataug needs mmengine: pip install "mmfeataug[onedl]" for the continued '
            'packages, or "mmfeataug[openmmlab]" for the original ones'
        )
    if found >= (2, 6) and find('mmengine') and not find('onedl-mmengine'):
        warnings.warn(
            f'mmengine {find("mmengine")} cannot read its own checkpoints back with PyTorch '
            f'{torch} (2.6 or newer), so that resuming and testing fail: take PyTorch 2.1.2, or '
            'the continued packages (onedl-*)',
            stacklevel=3,
        )
    for package, (continued, original) in FAMILIES.items():
        if find(continued) and find(original):
            warnings.warn(
                f'{continued} and {original} are both installed and overwrite each other: both '
                f'provide {package!r}. Keep one: pip uninstall {continued} {original}, then '
                'install the one you want',
                stacklevel=3,
            )
