# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Geometry of test pipelines: where the pixels of a file are in the network's input.

Test pipelines load annotations behind the steps that move the image, so that metrics see the
coordinates of the file. Here a sample goes through the same steps once more, with its annotations
loaded right behind the image, so that the steps move both; and with another image of the same size,
which leaves what is padding as it is.
"""

from typing import Any, NamedTuple

import numpy as np
from mmengine.runner import set_random_seed
from torch import Tensor

from mmfeataug.engine import RandomState
from mmfeataug.utils.images import KEYS
from mmfeataug.utils.pipelines import leaves

from .moved_truth import boxes_of, moved


class Region(NamedTuple):
    """Position of an image in the network's input, in pixels."""

    top: int
    left: int
    bottom: int
    right: int


class Geometry:
    """Geometry of the test pipelines of a data set.

    Args:
        dataset: Built; may wrap or join others.

    Attributes:
        dataset: The same.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset
        self._leaves = [leaf for leaf in leaves(dataset) if hasattr(leaf, 'pipeline')]
        self._found: dict[tuple[str, Any], list[tuple[Any, int]]] | None = None

    def region(self, sample: Any) -> Region | None:
        """Position of the image of a data sample; None if the data set does not have it."""
        places = self._places(sample)
        if not places:
            return None
        plain, other = (
            np.asarray(_run(*places[0], changed=changed)['inputs']) for changed in (False, True)
        )
        differs = (plain != other).any(0)
        if not differs.any():
            return Region(0, 0, *differs.shape)
        rows, columns = (np.flatnonzero(differs.any(axis)) for axis in (1, 0))
        return Region(int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)

    def truth(self, sample: Any) -> Any:
        """A data sample with ground truth in coordinates of the pipeline's output.

        Raises:
            ValueError: If the data set does not have it; if a step moves the image and neither
                moves ground truth nor writes down how, with its name.
        """
        places = self._places(sample)
        if not places:
            said = {key: sample.metainfo[key] for key in KEYS if key in sample.metainfo}
            raise ValueError(
                f'the test set has no image with {said}, so where ground truth lies in what the '
                'network sees is not known: let the pipeline keep img_path, img_id or sample_idx '
                'as the data set gives them'
            )
        if len(places) > 1:
            # One image with several annotations.
            places = [p for p in places if _same_truth(_run(*p)['data_samples'], sample)]
            if not places:
                raise ValueError(
                    f'{sample.metainfo.get("img_path")} is in the test set more than once, and '
                    'never with the ground truth of the data sample'
                )
        found = _run(*places[0], early=True)['data_samples']
        expected, seen = (s.metainfo.get('img_shape') for s in (sample, found))
        if expected is not None and tuple(expected[:2]) != tuple(seen[:2]):
            raise ValueError(
                f'the test pipeline made {tuple(expected[:2])} pixels of '
                f'{sample.metainfo.get("img_path")} and {tuple(seen[:2])} when it was run again: '
                'an attack needs one that draws nothing at random'
            )
        return found

    def _places(self, sample: Any) -> list[tuple[Any, int]]:
        """Data sets and numbers of the items that a data sample can be."""
        if self._found is None:
            self._found = {}
            for leaf in self._leaves:
                for index in range(len(leaf)):
                    info = leaf.get_data_info(index)
                    for key in KEYS:
                        if isinstance(info.get(key), (str, int)):
                            self._found.setdefault((key, info[key]), []).append((leaf, index))
        meta = sample.metainfo
        known = [(k, meta[k]) for k in KEYS if isinstance(meta.get(k), (str, int))]
        every = [self._found[key] for key in known if key in self._found]
        if not every:
            return []
        both = [p for p in every[0] if all(p in others for others in every[1:])]
        return both or every[0]


def _same_truth(a: Any, b: Any) -> bool:
    """Whether two data samples of one image have the same ground truth in the file."""
    if ('gt_instances' in a) != ('gt_instances' in b) or ('gt_sem_seg' in a) != ('gt_sem_seg' in b):
        return False
    if 'gt_sem_seg' in a:
        return all(
            np.array_equal(v.cpu(), getattr(b.gt_sem_seg, k).cpu()) for k, v in a.gt_sem_seg.items()
        )
    if 'gt_instances' not in a:
        return True
    pairs = [
        (boxes_of(getattr(a.gt_instances, k)), boxes_of(getattr(b.gt_instances, k).cpu()))
        for k in ('bboxes', 'labels')
        if k in a.gt_instances and k in b.gt_instances
    ]
    return all(x.shape == y.shape and np.allclose(x, y) for x, y in pairs)


def is_loader(step: Any) -> bool:
    """Whether a step of a pipeline loads annotations."""
    name = type(step).__name__
    return 'Load' in name and 'Annotations' in name


def _run(dataset: Any, index: int, *, early: bool = False, changed: bool = False) -> dict[str, Any]:
    """What the pipeline of a data set hands out; ``early``: with annotations loaded right behind
    the image; ``changed``: with another image in the place of the loaded one.
    """
    steps = list(dataset.pipeline.transforms)
    waiting = [step for step in steps if is_loader(step)] if early else []
    streams = RandomState()
    try:
        set_random_seed(0)
        results: Any = dataset.get_data_info(index)
        has_image = False
        # Some data sets bring their images along.
        for step in (None, *steps):
            if early and is_loader(step):
                continue
            if step is not None:
                results = moved(step, results) if early and has_image else step(results)
            if results is None:
                raise ValueError(f'{type(step).__name__} leaves out item {index} of the test set')
            if not has_image and isinstance(results.get('img'), np.ndarray):
                has_image = True
                if changed:
                    results['img'] = _other(results['img'])
                for loader in waiting:
                    results = loader(results)
        return results
    finally:
        streams.restore()


def _other(image: np.ndarray) -> np.ndarray:
    """An image that differs in each pixel."""
    if image.dtype.kind in 'ui':
        return np.iinfo(image.dtype).max - image
    return image + (np.abs(image).max() + 1).astype(image.dtype)


def region_of(sample: Any) -> Region:
    """Position of an image by the meta data of its sample, for samples without a data set."""
    meta = sample.metainfo
    height, width = meta.get('img_shape', (1 << 30, 1 << 30))[:2]
    if 'border' in meta or 'pad_param' in meta:
        top, bottom, left, right = (
            round(float(v)) for v in meta.get('border', meta.get('pad_param'))
        )
        if 'border' in meta:
            # Of the image in it, not of what is added.
            return Region(top, left, min(bottom, height), min(right, width))
        return Region(top, left, height - bottom, width - right)
    if 'scale_factor' in meta and 'ori_shape' in meta:
        across, down = meta['scale_factor'][:2]
        height = min(height, round(meta['ori_shape'][0] * float(down)))
        width = min(width, round(meta['ori_shape'][1] * float(across)))
    return Region(0, 0, height, width)


def to_view(boxes: Tensor, sample: Any) -> Tensor:
    """Boxes ``(n, 4)`` of the file in what the network sees, as far as the data sample says it."""
    meta = sample.metainfo
    factor = meta.get('scale_factor')
    if factor is None and ('border' in meta or 'pad_param' in meta):
        factor = (1.0, 1.0)
    if factor is None:
        (height, width), (old_height, old_width) = sample.img_shape[:2], sample.ori_shape[:2]
        factor = width / old_width, height / old_height
    region = region_of(sample)
    scaled = boxes * boxes.new_tensor([float(factor[0]), float(factor[1])] * 2)
    return scaled + boxes.new_tensor([region.left, region.top] * 2)
