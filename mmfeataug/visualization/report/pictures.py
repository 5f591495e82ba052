# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Figures as files and as parts of a page."""

import base64
import io
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

_DPI = 150
_CSS_DPI = 96


def _encode(figure: Figure, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    figure.savefig(buffer, dpi=_DPI, format=kind, **options)
    return buffer.getvalue()


@dataclass(frozen=True)
class Picture:
    """A figure as the template needs it; width and height in CSS pixels."""

    uri: str
    caption: str
    alt: str
    width: int
    height: int
    wide: bool = False


class Pictures:
    """Writes figures into a folder and hands them out as data URIs; no name is given twice.

    Args:
        folder: Of a report alone: made if missing; PNG files in it are of an earlier one, and
            deleted.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._taken: set[str] = set()
        folder.mkdir(parents=True, exist_ok=True)
        for earlier in folder.glob('*.png'):
            earlier.unlink()

    def add(
        self,
        name: str,
        figure: Figure,
        caption: str,
        alt: str,
        wide: bool = False,
        photo: bool = False,
    ) -> Picture:
        """Write ``<name>.png``, with the name as :meth:`anchor` gives it.

        Args:
            name, figure: Of the file, and what to draw.
            caption, alt: How to read it, and what it shows for those who cannot see it.
            wide: Whether it takes the whole width of the page.
            photo: Whether the page gets it as JPEG, which is a few times smaller.
        """
        data = _encode(figure, 'png')
        (self.folder / f'{self.anchor(name)}.png').write_bytes(data)
        kind = 'jpeg' if photo else 'png'
        if photo:
            data = _encode(figure, kind, pil_kwargs=dict(quality=88))
        width, height = (round(size * _CSS_DPI) for size in figure.get_size_inches())
        uri = f'data:image/{kind};base64,{base64.b64encode(data).decode()}'
        return Picture(uri, caption, alt, width, height, wide)

    def anchor(self, name: str) -> str:
        """The name as a word for files and links, with a number behind it if it is taken."""
        word = re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-') or 'part'
        unique, count = word, 1
        while unique in self._taken:
            count += 1
            unique = f'{word}-{count}'
        self._taken.add(unique)
        return unique
