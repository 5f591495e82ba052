# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The robustness tool as a module, and a table of each task that it made."""

import importlib.util

import pytest

from tests.robustness_runs import EXTRAS, ROOT, TASKS, make_case


@pytest.fixture(scope='session')
def extras(tmp_path_factory):
    folder = tmp_path_factory.mktemp('extras')
    (folder / 'robustness_extras.py').write_text(EXTRAS)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield folder


@pytest.fixture(scope='session')
def tool(extras):
    """The tool as a module: importing the packages takes longer than what it does here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / 'tools'))
        # Not by import: the tests of the figures have the same name.
        path = ROOT / 'tools/test_robustness.py'
        spec = importlib.util.spec_from_file_location('robustness_tool', path)
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        yield module


@pytest.fixture(scope='session', params=TASKS)
def case(request, demo_data, tool, tmp_path_factory):
    """Config, checkpoint and the table without worker processes."""
    if request.param == 'classification':
        pytest.importorskip('torchvision')
        pytest.importorskip('mmpretrain')
    return make_case(request.param, demo_data, tool, tmp_path_factory.mktemp(request.param))


@pytest.fixture(scope='session')
def classifier(demo_data, tool, tmp_path_factory):
    pytest.importorskip('torchvision')
    pytest.importorskip('mmpretrain')
    return make_case('classification', demo_data, tool, tmp_path_factory.mktemp('killed'))
