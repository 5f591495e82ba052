# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What all parts of a report on one task are made from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from mmfeataug.evaluation import Run

from .figures import Style
from .pictures import Pictures


@dataclass(frozen=True)
class Label:
    """Of a row or a column; ``color`` is that of the run."""

    text: str
    color: str = ''
    small: str = ''


@dataclass(frozen=True)
class Context:
    """What all parts of a task are made from.

    Attributes:
        task: Which one.
        groups: Seeds by name.
        baseline: Name that differences are to; ``None`` if it has no run of this task.
        style: Colours by name.
        pictures: Where figures go.
    """

    task: str
    groups: Mapping[str, Sequence[Run]]
    baseline: str | None
    style: Mapping[str, Style]
    pictures: Pictures

    def labels(self, seeds: Mapping[str, int]) -> dict[str, Label]:
        """Of rows and columns, by name, with the number of seeds that stand behind the values."""
        return {
            name: Label(name, self.style[name].color, f'{n} seeds' if n > 1 else '')
            for name, n in seeds.items()
        }
