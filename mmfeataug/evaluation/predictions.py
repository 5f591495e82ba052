# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Saved predictions of a test, to compute metrics later without the model."""

import contextlib
import copy
import io
import math
import pickle
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import DumpResults, Evaluator
from mmengine.runner import Runner

from mmfeataug.engine import patched
from mmfeataug.utils.files import write_at_once

from .scores import count_tested_only
from .unfinished import RefusedError

PREDICTIONS = 'predictions'
"""Folder beside the table."""

LEFT_OUT = ('seg_logits',)
"""Large, and of no use to an evaluator that has the label map."""


class Predictions(Sequence):
    """Data samples of a whole test set, in its order: predictions, ground truth and meta data, as
    dicts, which is what an evaluator's ``offline_evaluate`` takes.

    Samples are unpacked on access, so that large label maps fit into memory.

    Attributes:
        head: As given to :func:`saving`.
        dataset_meta: Value for the evaluator's ``dataset_meta``.
    """

    def __init__(self, samples: Sequence[Any], head: Mapping[str, Any], dataset_meta: Any) -> None:
        self._samples, self.head, self.dataset_meta = samples, head, dataset_meta

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [unpack(sample) for sample in self._samples[index]]
        return unpack(self._samples[index])

    def evaluate(self, evaluator: Any) -> dict[str, Any]:
        """What an evaluator says of them.

        Args:
            evaluator: Config of it, such as ``cfg.test_evaluator``. COCO's counts the objects of
                these images alone, whatever its annotation file has.
        """
        # It asks nothing of a runner.
        built = Runner.build_evaluator(None, copy.deepcopy(evaluator))  # type: ignore[arg-type]
        built.dataset_meta = self.dataset_meta
        count_tested_only(built, self)
        return built.offline_evaluate(self)

    def found(self) -> int:
        """Number of detected instances."""
        instances = (sample.get('pred_instances') or {} for sample in self._samples)
        first = (next(iter(found.values())) for found in instances if found)
        return sum(v.shape[0] if isinstance(v, Packed) else len(v) for v in first)


def read_predictions(path: str | Path) -> Predictions:
    """Read a file that :func:`saving` wrote.

    Args:
        path: A pickle file; read only files that you trust.

    Raises:
        RefusedError: If it is another file.
    """
    with Path(path).open('rb') as file:
        try:
            content = pickle.load(file)
            return Predictions(content['samples'], content['head'], content['dataset_meta'])
        except (pickle.UnpicklingError, EOFError, KeyError, TypeError) as error:
            raise RefusedError(f'{path} holds no predictions of a test: {error!r}') from None


@contextlib.contextmanager
def saving(evaluator: Evaluator, path: str | Path, **head: Any) -> Iterator[None]:
    """Context in which an evaluator also writes the predictions that it evaluates.

    Works for any evaluator, including those of several data sets.

    Args:
        evaluator: Of a test loop, which runs once.
        path: Of the file, written by the first process, at once or not at all.
        **head: What is said of the predictions.
    """
    dump = DumpPredictions(str(path), head)
    process, evaluate = evaluator.process, evaluator.evaluate

    def process_and_keep(data_samples: Sequence[Any], data_batch: Any = None) -> None:
        process(data_samples=data_samples, data_batch=data_batch)
        dump.process(data_batch, [s if isinstance(s, dict) else s.to_dict() for s in data_samples])

    def evaluate_and_write(size: int) -> dict:
        metrics = evaluate(size)
        dump.dataset_meta = evaluator.dataset_meta
        dump.evaluate(size)
        return metrics

    owner: Any = evaluator
    keep, write = (lambda *_: process_and_keep), (lambda *_: evaluate_and_write)
    with patched([(owner, 'process', keep), (owner, 'evaluate', write)]):
        yield


class DumpPredictions(DumpResults):
    """mmengine's ``DumpResults`` for files of a reasonable size, of any task, with ground truth.

    Masks and label maps become compressed bytes; logits of segmentation are left out. ``head`` is
    what is said of the predictions.
    """

    # Without one mmengine warns.
    default_prefix = 'predictions'

    def __init__(self, out_file_path: str, head: Mapping[str, Any]) -> None:
        super().__init__(out_file_path)
        self.head = dict(head)

    def process(self, data_batch: Any, predictions: Sequence[dict]) -> None:
        """Keep packed samples."""
        for sample in predictions:
            kept = {key: value for key, value in sample.items() if key not in LEFT_OUT}
            self.results.append(pack(kept))

    def compute_metrics(self, results: list) -> dict:
        """Write them; there is nothing to compute."""
        path = Path(self.out_file_path)
        path.parent.mkdir(parents=True, exist_ok=True)
        file = io.BytesIO()
        content = dict(head=self.head, dataset_meta=self.dataset_meta, samples=results)
        pickle.dump(content, file, protocol=pickle.HIGHEST_PROTOCOL)
        write_at_once(path, file.getvalue())
        return {}


@dataclass(frozen=True)
class Packed:
    """An array or tensor of integers or truth values, in few bytes.

    Attributes:
        data: Compressed bytes.
        stored: Type of what was compressed: bits, or the smallest integers that hold the values.
        own: Type of the array.
        shape: Of the array.
        tensor: Whether it is PyTorch's.
    """

    data: bytes
    stored: str
    own: str
    shape: tuple[int, ...]
    tensor: bool

    @classmethod
    def of(cls, array: np.ndarray, tensor: bool) -> 'Packed':
        """Pack an array without loss."""
        kept = array
        if array.dtype == bool:
            kept = np.packbits(array)
        elif array.size and array.min() >= 0:
            kept = array.astype(np.min_scalar_type(array.max()))
        # The quickest level: maps and masks are large areas.
        data = zlib.compress(np.ascontiguousarray(kept).data, 1)
        return cls(data, kept.dtype.str, array.dtype.str, array.shape, tensor)

    def restore(self) -> Any:
        """The array or tensor that was packed."""
        kept = np.frombuffer(zlib.decompress(self.data), self.stored)
        if self.own == np.dtype(bool).str:
            kept = np.unpackbits(kept, count=math.prod(self.shape))
        # A copy, which can be written to.
        array = kept.astype(self.own).reshape(self.shape)
        return torch.from_numpy(array) if self.tensor else array


def pack(value: Any) -> Any:
    """A nested value on the CPU, its maps and masks packed."""
    if isinstance(value, Mapping):
        return {key: pack(inner) for key, inner in value.items()}
    if isinstance(value, torch.Tensor):
        value = value.detach().cpu()
        if value.ndim > 1 and not (value.is_floating_point() or value.is_complex()):
            return Packed.of(value.numpy(), tensor=True)
        # A view would be written with all that it is a view of.
        return value.clone()
    if isinstance(value, np.ndarray) and value.ndim > 1 and value.dtype.kind in 'iub':
        return Packed.of(value, tensor=False)
    if isinstance(getattr(value, 'masks', None), np.ndarray):
        return _with_masks(value, pack(value.masks))
    return value.cpu() if isinstance(getattr(value, 'tensor', None), torch.Tensor) else value


def unpack(value: Any) -> Any:
    """What :func:`pack` was given, on the CPU."""
    if isinstance(value, Mapping):
        return {key: unpack(inner) for key, inner in value.items()}
    if isinstance(getattr(value, 'masks', None), Packed):
        return _with_masks(value, unpack(value.masks))
    return value.restore() if isinstance(value, Packed) else value


def _with_masks(value: Any, masks: Any) -> Any:
    """Of mmdet's ``BitmapMasks``, which are ground truth."""
    value = copy.copy(value)
    value.masks = masks
    return value
