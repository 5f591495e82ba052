# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_wheel_carries_configs_and_tools(tmp_path):
    command = [
        sys.executable,
        '-m',
        'pip',
        'wheel',
        '.',
        '--no-deps',
        '--no-build-isolation',
        '-q',
        '-w',
        tmp_path,
    ]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (wheel,) = tmp_path.glob('mmfeataug-*.whl')
    names = set(zipfile.ZipFile(wheel).namelist())
    for folder in ('configs', 'tools'):
        files = subprocess.run(
            ['git', 'ls-files', folder], cwd=ROOT, check=True, capture_output=True, text=True
        ).stdout.split()
        assert files
        assert {f'mmfeataug/.mim/{f}' for f in files} <= names
    assert 'mmfeataug/.mim/model-index.yml' in names
    assert {'mmfeataug/py.typed', 'mmfeataug/visualization/report/page.html.j2'} <= names
    assert not [n for n in names if n.startswith(('tests/', 'configs/', 'tools/', 'benchmarks/'))]


def test_editable_install_links_them():
    mim = ROOT / 'mmfeataug' / '.mim'
    assert (mim / 'configs' / 'afan' / 'README.md').read_text() == (
        ROOT / 'configs/afan/README.md'
    ).read_text()
    assert (mim / 'tools' / 'train.py').exists()
