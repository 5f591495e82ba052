# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import os

import pytest

from tests.zoo import page


@pytest.fixture(scope='session')
def zoo_rows():
    """Rows of the page by model; the page is written at the end, where one asks for it."""
    rows = {}
    yield rows
    if os.environ.get('MMFEATAUG_WRITE_ZOO'):
        page.write(rows)
