# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def tracked(folder):
    return subprocess.run(
        ['git', 'ls-files', folder], cwd=ROOT, check=True, capture_output=True, text=True
    ).stdout.split()


def test_wheel_carries_configs_and_tools(tmp_path):
    """And the package, of a fresh checkout: files that are gone may lie in this one's build/."""
    source = tmp_path / 'source'
    for name in tracked('.'):
        if (ROOT / name).is_file():
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, source / name)
    options = ['--no-deps', '--no-build-isolation', '-q', '-w', tmp_path]
    command = [sys.executable, '-m', 'pip', 'wheel', '.', *options]
    subprocess.run(command, cwd=source, check=True, capture_output=True)
    (wheel,) = tmp_path.glob('mmfeataug-*.whl')
    names = {n for n in zipfile.ZipFile(wheel).namelist() if '.dist-info/' not in n}
    inside = {f'mmfeataug/.mim/{f}' for f in [*tracked('configs'), *tracked('tools')]}
    assert names == {*tracked('mmfeataug'), *inside, 'mmfeataug/.mim/model-index.yml'}


def test_editable_install_links_them():
    mim = ROOT / 'mmfeataug' / '.mim'
    assert (mim / 'configs' / 'afan' / 'README.md').read_text() == (
        ROOT / 'configs/afan/README.md'
    ).read_text()
    assert (mim / 'tools' / 'train.py').exists()
