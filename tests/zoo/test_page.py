# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The page on supported models is the one of this table."""

import os

import pytest

from tests.zoo.page import PAGE, models_on_page
from tests.zoo.shrink import find_config
from tests.zoo.table import DETECTORS, ENTRIES, SEGMENTORS

pytestmark = pytest.mark.zoo


def test_table_is_as_large_as_promised():
    names = [entry.name for entry in ENTRIES]
    assert len(set(names)) == len(names)
    assert len(DETECTORS) >= 24
    assert len(SEGMENTORS) >= 16


@pytest.mark.parametrize('entry', ENTRIES, ids=lambda entry: entry.name)
def test_config_is_shipped(entry):
    pytest.importorskip(entry.package)
    assert find_config(entry.package, entry.config).is_file()


@pytest.mark.skipif(
    bool(os.environ.get('MMFEATAUG_WRITE_ZOO')), reason='the page is written after the tests'
)
def test_page_lists_the_table():
    assert models_on_page() == [entry.name for entry in ENTRIES]
    assert 'replay' in PAGE.read_text()
