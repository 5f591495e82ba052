# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What a tool computes goes to standard output, everything else to standard error."""

import contextlib
import functools
import json
import sys
from collections.abc import Callable
from typing import Any, TextIO

from rich.console import Console
from rich.table import Table


def results_on_stdout(main: Callable[..., None]) -> Callable[..., None]:
    """Call ``main(out, ...)`` with standard output, and let all that prints without asking, such as
    the logs of frameworks, go to standard error.
    """

    @functools.wraps(main)
    def run(*args: Any, **kwargs: Any) -> None:
        out = sys.stdout
        with contextlib.redirect_stdout(sys.stderr):
            main(out, *args, **kwargs)

    return run


def print_table(table: Table, out: TextIO, as_json: bool = False) -> None:
    """A table for people, or a line of JSON: its title, and a dict for each row."""
    if as_json:
        heads = [str(column.header) for column in table.columns]
        cells = [list(column.cells) for column in table.columns]
        rows = [dict(zip(heads, row, strict=True)) for row in zip(*cells, strict=True)]
        print(json.dumps({'title': table.title, 'rows': rows}), file=out)
    else:
        # Wide where nobody says how wide: in a file.
        console = Console(file=out)
        Console(file=out, width=None if console.is_terminal else 140).print(table)
