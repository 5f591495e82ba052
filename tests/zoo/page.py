# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""``docs/supported_models.md``, written from what the tests of the zoo found."""

import re
from dataclasses import dataclass, field
from importlib.metadata import packages_distributions, version
from pathlib import Path

from tests.zoo.table import DETECTORS, PLACES, SEGMENTORS, Entry

PAGE = Path(__file__).resolve().parents[2] / 'docs' / 'supported_models.md'
COMMAND = 'make zoo'
PACKAGES = ('torch', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'mmpretrain')
HEADER = """\
# Supported models

Written by the test run of `tests/zoo`, not by hand:

    {command}

{versions}.

Each row is a config that mmdet or mmseg ships, made small (widths divided by 8 where the code does
not fix them, at most two layers of a transformer, few queries and proposals, images of 32 or 64
pixels, random weights and targets) and run in training mode on a CPU. Any other model works the
same way: the engine knows no model by name, it checks every tap in the first step, and what cannot
be replayed runs in full, with a warning that says why.

A cell is a tap, as one writes it in `at=`, followed by

- how views run there: **replay** returns what the clean pass recorded before the tap, **full
  re-run** computes it again (the reason stands below the table);
- **t**, the share of a stock step (forward and backward) that lies behind the tap: one view costs
  about t more steps. It is timed, so it varies from run to run, and a small model is not a large
  one: `tools/analysis_tools/list_taps.py CONFIG` prints t of yours.

For every tap the loss terms of a view and the gradients of all parameters equal those of a stock
pass in which a plain forward hook replaces the module's output (to 1e-5 of each tensor's largest
element). For every model two optimizer steps with all four taps at once stay finite, and
state dict keys and predictions stay stock (of SSD the raw outputs: mmdet's own `predict` fails
for it). A model without a neck is tapped at its backbone's
output instead.

{count} models, {taps} taps, {replayed} of them by replay.
"""


@dataclass
class Row:
    """A model.

    Attributes:
        backbone: Name of its class.
        shares: t by place.
        reasons: By place, why views run in full; None where they replay.
        trained: Whether two optimizer steps went well.
    """

    backbone: str
    shares: dict[str, float]
    reasons: dict[str, str | None] = field(default_factory=dict)
    trained: bool = False

    @property
    def complete(self) -> bool:
        """Whether every test of it ran and passed."""
        return self.trained and self.reasons.keys() == self.shares.keys()


def reason(messages: list[str]) -> str:
    """Why a tap runs in full, from the warnings of its first steps."""
    for message in messages:
        if found := re.search(r'a replay of recorded results is not exact \((.*?)\); ', message):
            return found[1]
    raise AssertionError(f'a tap runs in full and does not say why: {messages}')


def write(rows: dict[str, Row]) -> None:
    """Write the page, if every model was tested; those that need a missing package say so."""
    tested = [e for e in DETECTORS + SEGMENTORS if e.name in rows]
    left = [e for e in DETECTORS + SEGMENTORS if e.name not in rows]
    if not all(row.complete for row in rows.values()) or any(e.needs is None for e in left):
        return
    modes = [r for e in tested for r in rows[e.name].reasons.values()]
    header = HEADER.format(
        command=COMMAND,
        versions=', '.join(_versions()),
        count=len(tested),
        taps=len(modes),
        replayed=sum(r is None for r in modes),
    )
    parts = [header, *_table('Detectors', DETECTORS, rows), *_table('Segmentors', SEGMENTORS, rows)]
    PAGE.write_text('\n'.join(parts))


def models_on_page() -> list[str]:
    """The first column of its tables."""
    return re.findall(r'^\| `([^`]+)`', PAGE.read_text(), re.MULTILINE)


def _table(title: str, entries: list[Entry], rows: dict[str, Row]) -> list[str]:
    lines = [f'## {title}', '', f'| model | backbone | {" | ".join(PLACES)} |']
    lines.append('|---' * (2 + len(PLACES)) + '|')
    notes: list[str] = []
    for entry in entries:
        if entry.name not in rows:
            lines.append(f'| `{entry.name}` | not tested: needs {entry.needs} |' + ' |' * 4)
            continue
        row = rows[entry.name]
        cells = []
        for place, path in entry.taps.items():
            why = row.reasons[place]
            if why:
                notes.append(f'- `{entry.name}`, `{path}`: {why}.')
            how = '**full re-run**' if why else 'replay'
            cells.append(f'`{path}` {how}, t {row.shares[place]:.2f}')
        lines.append(f'| `{entry.name}` | {row.backbone} | {" | ".join(cells)} |')
    lines.append('')
    if notes:
        lines += ['Why views run in full:', '', *notes, '']
    return lines


def _versions() -> list[str]:
    known = packages_distributions()
    names = {known[p][0]: version(known[p][0]) for p in PACKAGES if p in known}
    return [f'{name} {number}' for name, number in names.items()]
