# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What the documentation tells readers to paste and to open is there, and runs."""

import ast
import collections
import itertools
import os
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

from tests.launch import launch

ROOT = Path(__file__).resolve().parents[1]
METHODS = ROOT / 'docs' / 'methods.md'
TUTORIAL = ROOT / 'docs' / 'tutorial.md'
PAGES = sorted([*ROOT.glob('*.md'), *ROOT.glob('docs/*.md'), *ROOT.glob('configs/**/*.md')])


def blocks(page):
    return re.findall(r'^```python\n(.*?)^```$', page.read_text(), re.MULTILINE | re.DOTALL)


@pytest.mark.methods
def test_own_method(tmp_path):
    (code,) = (block for block in blocks(METHODS) if 'class HideBestChannels' in block)
    assert len([line for line in code.splitlines() if line]) <= 30
    script = tmp_path / 'own_method.py'
    script.write_text(code)
    result = launch(script)
    assert result.returncode == 0, result.stderr[-3000:]
    losses = ast.literal_eval(result.stdout.splitlines()[-1])
    # Both weights are 0.5: a view that is the clean feature would have the clean loss.
    assert losses['hidebestchannels.loss_0'] > 0
    assert losses['hidebestchannels.loss_0'] != losses['decode.loss_ce']


ROWS = {
    'AdvBN': 'advbn',
    'FMA + combined augmentations, fine-tuned from the baseline': 'fma',
    'stability training, fine-tuned from the baseline': 'stability',
    'SeA': 'sea',
    'AdAutoMix, its teacher (ours for these tasks)': 'adautomix',
    'MixStyle': 'mixstyle',
    'DSU': 'dsu',
    'MoEx': 'moex',
    'NP': 'np',
    'pixel attack (AdvProp)': 'advprop',
}


def test_metafiles():
    """They name every config, under its paper, and the results are those of the table."""
    table = (ROOT / 'docs/results.md').read_text().partition('<!-- table: small -->')[2]
    lines = itertools.takewhile(lambda line: line[:1] == '|', table.strip().splitlines())
    found = {}
    for line in itertools.islice(lines, 3, None):
        title, *numbers = (cell.strip() for cell in line.strip('|').split('|'))
        found[ROWS[title]] = {'BCCD': float(numbers[0]), 'CamVid': float(numbers[4])}
    assert found.keys() == set(ROWS.values())
    index = yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']
    assert {Path(p).parent.name for p in index} | {'_base_', 'baseline', 'demo'} == {
        p.name for p in (ROOT / 'configs').iterdir() if p.is_dir()
    }
    for path in index:
        content = yaml.safe_load((ROOT / path).read_text())
        configs = [model['Config'] for model in content['Models']]
        assert sorted(configs) == [
            str(p.relative_to(ROOT)) for p in sorted((ROOT / path).parent.glob('*.py'))
        ]
        for collection in content['Collections']:
            readme = (ROOT / collection['README']).read_text()
            assert collection['Paper']['URL'] in readme
            assert collection['Paper']['Title'] in ' '.join(readme.replace('>', ' ').split())
        used = {model['In Collection'] for model in content['Models']}
        assert used == {collection['Name'] for collection in content['Collections']}
        for model in content['Models']:
            assert model['Name'] == Path(model['Config']).stem
            method = model['Name'].partition('_')[0]
            for result in model.get('Results', []):
                assert list(result['Metrics'].values()) == [found[method][result['Dataset']]]
    measured = sum(
        'Results:' in line for path in index for line in (ROOT / path).read_text().splitlines()
    )
    assert measured == 2 * len(ROWS)


def test_presets():
    """The page of what they mirror names each, once."""
    text = (ROOT / 'docs/presets.md').read_text()
    stems = {p.stem for p in (ROOT / 'configs').glob('*/*_release.py')}
    assert set(re.findall(r'`(\w[\w-]+_release)`', text)) == stems
    assert all(text.count(f'`{stem}`') == 1 for stem in stems)


@pytest.mark.slow
def test_tutorial(tmp_path):
    """Its files and commands as they are, but for the number of images and epochs."""
    text = TUTORIAL.read_text()
    shorter = (
        ('--train 96', '--train 8'),
        ('=8', '=1'),
        ('epoch_8', 'epoch_1'),
        ('prob=0.2', 'prob=1.0'),
    )
    for full, short in shorter:
        assert full in text
        text = text.replace(full, short)
    text = text.replace('--eps 0 0.5 1 2', '--eps 0 1 --steps 1 --flag-images 2')
    for name in ('my_data.py', 'my_data_robust.py'):
        (code,) = re.findall(rf'`{name}`:\n\n```python\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
        (tmp_path / name).write_text(code)
    lines = [
        line
        for block in re.findall(r'^```shell\n(.*?)^```$', text, re.MULTILINE | re.DOTALL)
        for line in block.splitlines()
    ]
    assert len(lines) == 10
    env = {**os.environ, 'OMP_NUM_THREADS': '1', 'MMFEATAUG': str(ROOT)}
    env['PATH'] = f'{Path(sys.executable).parent}{os.pathsep}{env["PATH"]}'
    for line in lines:
        result = subprocess.run(
            line, shell=True, cwd=tmp_path, env=env, capture_output=True, text=True, check=False
        )
        assert result.returncode == 0, f'{line}\n{result.stderr[-3000:]}'
    assert (tmp_path / 'report' / 'report.html').stat().st_size > 100_000
    pictures = [p.name for p in tmp_path.glob('work_dirs/my_data_robust/*/vis_data/vis_image/*')]
    assert 'afan.view_0_1.png' in pictures


@pytest.mark.parametrize('page', PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_blocks_are_python(page):
    for block in blocks(page):
        compile(block, str(page), 'exec')


def expanded(name):
    """``a_{b,c}.py`` is ``a_b.py`` and ``a_c.py``, as in a shell."""
    if not (found := re.search(r'\{([^{}]*)\}', name)):
        return [name]
    return [
        full
        for part in found[1].split(',')
        for full in expanded(name[: found.start()] + part + name[found.end() :])
    ]


@pytest.fixture(scope='module')
def scripts():
    """Names of the Python files that a reader has: ours, and the configs of the frameworks."""
    ours = ('benchmarks', 'configs', 'docs', 'mmfeataug', 'tests', 'tools')
    roots = [ROOT / folder for folder in ours]
    for package in ('mmdet', 'mmseg', 'mmpretrain'):
        if spec := find_spec(package):
            roots.append(Path(spec.submodule_search_locations[0]) / '.mim')
    return {path.name for root in roots for path in root.rglob('*.py')} | {'setup.py'}


@pytest.mark.parametrize(
    'page', [*PAGES, ROOT / 'Makefile'], ids=lambda p: str(p.relative_to(ROOT))
)
def test_named_scripts_are_there(page, scripts):
    """Configs and tools that a text names exist, by their path if it has one; but for the
    reader's own and the one that a run writes."""
    for mention in re.findall(r'[\w./{},:+-]*[\w}]\.py\b', page.read_text()):
        for name in expanded(mention):
            last = name.rpartition('/')[2]
            if last.startswith('my_') or last == 'config.py':
                continue
            assert (ROOT / name).is_file() if name.startswith('configs/') else last in scripts, name


def test_cards():
    """Each method's README has a place for its figures, then the same parts in one order."""
    parts = ['Suggested settings', "The release's settings", 'Formula', 'Provenance', 'Citation']
    for index in yaml.safe_load((ROOT / 'model-index.yml').read_text())['Import']:
        text = (ROOT / index).with_name('README.md').read_text()
        marks = (
            f'<!-- comparison: {Path(index).parent.name}-card -->',
            '<!-- /comparison -->',
            '**Verdict.**',
            '\n## ',
        )
        places = [text.index(mark) for mark in marks]
        assert places == sorted(places), index
        assert re.findall(r'^## (.+)$', text, re.MULTILINE) == parts, index


def prose(page):
    return re.sub(r'^ *```.*?^ *```$', '', page.read_text(), flags=re.MULTILINE | re.DOTALL)


def anchors(page):
    """Those that GitHub and the site give the headings of a page."""
    seen = collections.Counter()
    for heading in re.findall(r'^#+ (.+)$', prose(page), re.MULTILINE):
        slug = re.sub(r'[^\w\- ]', '', heading.lower()).replace(' ', '-')
        yield f'{slug}-{seen[slug]}' if seen[slug] else slug
        seen[slug] += 1


@pytest.mark.parametrize('page', PAGES, ids=lambda p: str(p.relative_to(ROOT)))
def test_links_lead_somewhere(page):
    for link in re.findall(r'\]\(([^)\s]+)\)', prose(page)):
        if '://' in link:
            continue
        path, _, anchor = link.partition('#')
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert target.is_relative_to(ROOT), link
        if anchor:
            assert target.suffix == '.md', f'{link}: numbers of lines move'
            assert anchor in anchors(target), link
