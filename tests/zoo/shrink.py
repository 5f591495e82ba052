# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Stock configs, read where they are installed and made small enough for seconds on a laptop."""

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from mmengine.config import Config, ConfigDict

# Widths of layers. All are divided by one number, so that they still fit each other.
WIDTHS = {
    'base_channels', 'bga_channels', 'c1_channels', 'c1_in_channels', 'channels',
    'conv_out_channels', 'detail_channels', 'embed_dims', 'fc_out_channels', 'feat_channels',
    'feedforward_channels', 'ham_channels', 'in_channels', 'last_in_channels', 'layer_channels',
    'num_channels', 'num_deconv_filters', 'num_feats', 'num_groups', 'ocr_channels',
    'out_channels', 'ppm_channels', 'proposal_feature_channel', 'psp_out_channels',
    'semantic_channels', 'stem_channels', 'widen_factor',
}  # fmt: skip
# Numbers of things, with the most that are kept.
COUNTS = {
    'depth': 50, 'depths': 2, 'max_per_img': 20, 'min_kept': 100, 'nms_pre': 100,
    'num': 16, 'num_blocks': 1, 'num_convs': 2, 'num_dn_queries': 4, 'num_layers': 2,
    'num_modules': 1, 'num_points': 112, 'num_proposals': 20, 'num_queries': 20,
    'stacked_convs': 2,
}  # fmt: skip
RESNETS = {'Res2Net', 'ResNeSt', 'ResNeXt', 'ResNet', 'ResNetV1c', 'ResNetV1d'}


def find_config(package: str, config: str) -> Path:
    """A config that ``package`` ships.

    ``package::config`` would ask for a distribution of that name; this needs the files only.
    """
    return Path(find_spec(package).submodule_search_locations[0]) / '.mim' / 'configs' / config


def load_model_config(package: str, config: str) -> ConfigDict:
    """The ``model`` of a config that ``package`` ships."""
    return Config.fromfile(find_config(package, config), import_custom_modules=False).model


def shrink(model: ConfigDict, divisor: int, overrides: dict) -> ConfigDict:
    """Fewer channels, layers, queries and proposals; no downloads, no SyncBN, no checkpointing.

    Args:
        model: Changed in place and returned.
        divisor: Of every width in :data:`WIDTHS`.
        overrides: Dotted path to value, put in last.
    """
    for part in _dicts(model):
        if part.get('type') in RESNETS:
            part.setdefault('base_channels', 64)
            # Residual branches that begin as zero would hide what happens inside of them.
            part['zero_init_residual'] = False
    for part in _dicts(model):
        _shrink_part(part, divisor)
    for path, value in overrides.items():
        *parents, last = path.split('.')
        part = model
        for key in parents:
            part = part[key]
        part[last] = value
    return model


def _shrink_part(part: dict, divisor: int) -> None:
    for key, value in part.items():
        if key in WIDTHS:
            part[key] = _each(value, lambda n: _narrow(n, divisor))
        elif key in COUNTS:
            part[key] = _each(value, lambda n, most=COUNTS[key]: min(n, most))
    if part.get('type') == 'SyncBN':
        part['type'] = 'BN'
    for key, value in {'with_cp': False, 'pretrained': None, 'score_thr': 0.0}.items():
        if key in part:
            part[key] = value
    if 'checkpoint' in (part.get('init_cfg') or {}):
        part['init_cfg'] = None


def _narrow(width: float, divisor: int) -> float:
    if isinstance(width, float):
        return width / divisor
    return width // divisor if width % divisor == 0 else width


def _each(value: Any, change: Any) -> Any:
    if isinstance(value, (list, tuple)):
        return type(value)(_each(v, change) for v in value)
    return change(value) if isinstance(value, (int, float)) else value


def _dicts(value: Any) -> list[dict]:
    """All dicts within, outermost first."""
    if isinstance(value, dict):
        return [value, *(d for v in value.values() for d in _dicts(v))]
    return [d for v in value for d in _dicts(v)] if isinstance(value, (list, tuple)) else []
