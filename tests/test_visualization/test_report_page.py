# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""The page of a report, read back as people's scripts would read it, and by a browser."""

import base64
import importlib.util
import io
import json
import shutil
import statistics
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from mmengine.structures import BaseDataElement as DataSample
from PIL import Image

from mmfeataug.evaluation import Difference, complete, method_scalars, write_table
from mmfeataug.evaluation.comparison.runs import read_runs
from mmfeataug.visualization import predictions
from mmfeataug.visualization.predictions import draw_predictions, render_predictions
from mmfeataug.visualization.report import Examples, write_report
from mmfeataug.visualization.report.figures import styles
from mmfeataug.visualization.report.training import _panels
from tests.launch import launch

ROOT = Path(__file__).resolve().parents[2]
TOOL = ROOT / 'tools' / 'analysis_tools' / 'report.py'
NASTY = '<script>alert("1")</script>&'


class Page(HTMLParser):
    """Cells by run, metric and key; images; text; whatever else would load something."""

    def __init__(self, text):
        super().__init__()
        self.cells, self.shown, self.images, self.words, self.tags = {}, {}, [], [], []
        self.sections, self._cell, self._span = [], None, None
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        attrs = dict(attrs)
        self.tags.append((tag, attrs))
        if tag == 'td' and 'data-run' in attrs:
            self._cell = attrs['data-run'], attrs['data-metric'], attrs['data-key']
            if 'data-value' in attrs:
                parts = (attrs.get(f'data-{k}') for k in ('value', 'std', 'n'))
                self.cells[self._cell] = [None if p is None else float(p) for p in parts]
        if tag == 'span' and self._cell:
            self._span = attrs.get('class')
        if tag == 'img':
            self.images.append(attrs)
        if tag == 'section' and 'data-folder' in attrs:
            self.sections.append(attrs['data-folder'])

    def handle_endtag(self, tag):
        if tag == 'td':
            self._cell = None
        if tag == 'span':
            self._span = None

    def handle_data(self, data):
        self.words.append(data)
        if self._cell and self._span:
            self.shown[(*self._cell, self._span)] = data.strip()

    @property
    def text(self):
        return ' '.join(' '.join(self.words).split())


def table(clean, noise, fog, task='detection', metric='coco/bbox_mAP'):
    """Two corruptions at severities 1 and 3, and a second metric."""

    def scores(value):
        return {metric: value, 'second': value / 2}

    corrupted = {
        'gaussian_noise': {s: scores(v) for s, v in zip('13', noise, strict=True)},
        'fog': {s: scores(v) for s, v in zip('13', fog, strict=True)},
    }
    head = dict(config='cfg', checkpoint='c.pth', task=task, clean=scores(clean))
    return complete({**head, 'corrupted': corrupted, 'made_with': {'images': 87}})


TABLES = {
    'base': [table(0.5, (0.4, 0.2), (0.3, 0.1))],
    'ours': [table(0.6, (0.5, 0.3), (0.2, 0.0)), table(0.4, (0.5, 0.1), (0.4, 0.2))],
}


def attack_result(values):
    points = [dict(eps=e, metrics={'coco/bbox_mAP': v}, loss=1.0) for e, v in values.items()]
    head = dict(config='c.py', checkpoint='', task='detection', attack='pgd', at='inputs', steps=3)
    head |= dict(norm='linf', unit='pixel', against=[], step_size=None, side='output', restarts=1)
    return dict(head, image_range=None, random_start=True, made_with={}, curve=points)


def make_dirs(folder, tables=TABLES, logs=True):
    """Work directories as ``NAME=DIR``."""
    specs = []
    for name, seeds in tables.items():
        for i, one in enumerate(seeds):
            run = folder / f'{len(specs)}'
            write_table(one, run / 'robustness')
            specs.append(f'{name}={run}')
            path = run / '20260101_000000' / 'vis_data' / 'scalars.json'
            path.parent.mkdir(parents=True)
            records = [log_record(step, name, i) for step in range(10, 110, 10)] if logs else []
            path.write_text(''.join(json.dumps(r) + '\n' for r in records))
            (run / 'adversarial.json').write_text(
                json.dumps(attack_result({0: one['clean']['coco/bbox_mAP'], 2: 0.1 * (i + 1)}))
            )
    return specs


def log_record(step, name, seed):
    record = dict(iter=step, loss=2.0, loss_cls=10.0 / step, time=0.5, memory=100)
    if name != 'base':
        time = 1.0 + seed
        record |= {'afan.loss_0': 1.0 / step, 'afan.linf': 0.1, 'afan.dropped': 0.0, 'time': time}
        record |= {'afan.rise': 0.3, 'feature_aug.active': 1.0, 'feature_aug.clean_weight': 0.5}
    return record


@pytest.fixture(scope='module')
def written(tmp_path_factory):
    folder = tmp_path_factory.mktemp('runs')
    path = write_report(read_runs(make_dirs(folder)), folder / 'new' / 'out', title=NASTY)
    return path, Page(path.read_text())


def test_numbers_are_those_of_the_tables(written):
    _, page = written
    for metric in ('coco/bbox_mAP', 'second'):
        for name, seeds in TABLES.items():
            for key in ('P', 'mPC', 'rPC', 'noise', 'weather'):
                own = [t['summary'][metric] for t in seeds]
                own = [{**s, **s['families']}[key] for s in own]
                value, std, n = page.cells[name, metric, key]
                assert value == pytest.approx(statistics.fmean(own)), (name, key)
                assert n == len(seeds)
                assert std == (pytest.approx(statistics.stdev(own)) if n > 1 else None)


def test_what_readers_see(written):
    """Worked out by hand: of the seeds P is 0.6 and 0.4, mPC 0.25 and 0.3."""
    _, page = written
    assert '1 table of robustness (87 images), 1 result of attacks, log' in page.text
    assert page.shown['base', 'coco/bbox_mAP', 'mPC', 'value'] == '0.2500'
    assert ('base', 'coco/bbox_mAP', 'mPC', 'difference') not in page.shown
    assert page.shown['ours', 'coco/bbox_mAP', 'mPC', 'value'] == '0.2750'
    assert page.shown['ours', 'coco/bbox_mAP', 'mPC', 'spread'] == '± 0.0354'
    assert page.shown['ours', 'coco/bbox_mAP', 'mPC', 'difference'] == '+0.0250'
    assert page.shown['ours', 'coco/bbox_mAP', 'P', 'spread'] == '± 0.1414'
    assert page.shown['ours', 'coco/bbox_mAP', 'fog', 'difference'] == '+0.0000'
    assert page.cells['ours', 'coco/bbox_mAP', 'gaussian_noise'][0] == pytest.approx(0.35)
    assert page.cells['ours', 'coco/bbox_mAP', 'severity 3'][0] == pytest.approx(0.15)
    assert page.cells['ours', 'coco/bbox_mAP', 'eps 2'][:2] == [
        pytest.approx(0.15),
        pytest.approx(statistics.stdev([0.1, 0.2])),
    ]
    assert page.cells['ours', 'cost', 'seconds'][0] == 1.5
    assert page.shown['ours', 'cost', 'seconds ratio', 'value'] == '3.00'
    assert '2 seeds' in page.text
    assert 'no benchmark' in page.text


def test_better_is_blue_and_worse_is_orange(tmp_path):
    tables = {'base': [table(0.5, (0.4, 0.2), (0.3, 0.1))]}
    tables['other'] = [table(0.5, (0.5, 0.3), (0.2, 0.0))]
    page = Page(write_report(read_runs(make_dirs(tmp_path, tables)), tmp_path / 'o').read_text())
    colors = {a['data-key']: a['style'] for t, a in page.tags if t == 'td' and 'style' in a}
    assert set(colors) == {'gaussian_noise', 'fog'}
    assert '0, 114, 178' in colors['gaussian_noise']
    assert '213, 94, 0' in colors['fog']


def test_of_an_error_less_is_blue(tmp_path):
    for name, noise, fog in (('base', (0.4, 0.2), (0.3, 0.1)), ('other', (0.5, 0.3), (0.2, 0.0))):
        one = table(0.5, noise, fog, 'segmentation', 'rmse')
        write_table(one, tmp_path / name / 'robustness')
    runs = read_runs([f'{name}={tmp_path / name}' for name in ('base', 'other')])
    page = Page(write_report(runs, tmp_path / 'o').read_text())
    colors = {a['data-key']: a['style'] for t, a in page.tags if t == 'td' and 'style' in a}
    assert '213, 94, 0' in colors['gaussian_noise']
    assert '0, 114, 178' in colors['fog']
    assert 'severities. Lower is better' in page.text
    assert 'a lower one is better' in page.text
    assert 'less is better, and rPC is P / mPC, for rmse' in page.text


def test_the_baseline_is_who_one_says(tmp_path):
    runs = read_runs(make_dirs(tmp_path))
    page = Page(write_report(runs, tmp_path / 'o', baseline='ours').read_text())
    assert page.shown['base', 'coco/bbox_mAP', 'mPC', 'difference'] == '-0.0250'
    assert ('ours', 'coco/bbox_mAP', 'mPC', 'difference') not in page.shown
    with pytest.raises(ValueError, match=r"baseline 'nobody'.*base, ours"):
        write_report(runs, tmp_path / 'o', baseline='nobody')


def test_nothing_is_loaded_from_elsewhere(written):
    path, page = written
    text = path.read_text()
    assert 'http://' not in text
    assert 'https://' not in text
    assert 'url(' not in text
    assert '@import' not in text
    tags = {tag for tag, _ in page.tags}
    assert not tags & {'script', 'link', 'iframe', 'object', 'embed', 'video', 'base'}
    assert page.images
    for _, attrs in page.tags:
        assert attrs.get('src', 'data:').startswith('data:')
        assert attrs.get('href', '#').startswith('#')
    anchors = [a['id'] for _, a in page.tags if 'id' in a]
    assert len(set(anchors)) == len(anchors)
    assert {a['href'][1:] for t, a in page.tags if t == 'a'} <= set(anchors)


def test_names_are_escaped(tmp_path, written):
    _, page = written
    assert NASTY in page.text
    tables = {NASTY: [table(0.5, (0.4, 0.2), (0.3, 0.1))]}
    path = write_report(read_runs(make_dirs(tmp_path, tables)), tmp_path / 'o')
    assert '<script' not in path.read_text()
    assert Page(path.read_text()).cells[NASTY, 'coco/bbox_mAP', 'P'][0] == 0.5


def test_pictures_lie_beside_the_page(written):
    path, page = written
    files = {p.read_bytes() for p in path.parent.glob('report_pictures/*.png')}
    inlined = [base64.b64decode(i['src'].partition('base64,')[2]) for i in page.images]
    assert set(inlined) == files
    # Frontier, families, severities, attack, clean loss, view losses, scalars of methods.
    assert len(inlined) == len(files) == 7
    for file in path.parent.glob('report_pictures/*.png'):
        assert np.asarray(Image.open(file).convert('L')).std() > 3, file
    assert all(image['alt'] and int(image['width']) > 100 for image in page.images)
    assert 'stayed 0: afan.dropped' in page.text


def test_pictures_are_those_of_the_last_report(tmp_path):
    specs = make_dirs(tmp_path)
    own = tmp_path / 'o/pictures/holiday.png'
    own.parent.mkdir(parents=True)
    own.touch()
    write_report(read_runs(specs), tmp_path / 'o')
    one = write_report(read_runs(specs[:1]), tmp_path / 'o')
    page = Page(one.read_text())
    assert len(page.images) == len(list(tmp_path.glob('o/report_pictures/*.png')))
    assert own.is_file()


def test_the_rise_of_the_loss_is_drawn(tmp_path):
    runs = read_runs(make_dirs(tmp_path))
    panels, zero = _panels({'ours': [r for r in runs if r.name == 'ours']}, method_scalars)
    assert {curve[0] for curve in panels['afan.rise']['ours']} == {(10, 0.3)}
    assert zero == ['afan.dropped']


def test_sections_and_what_is_missing(tmp_path):
    specs = make_dirs(tmp_path, logs=False)
    write_table(TABLES['base'][0], tmp_path / '0' / 'robustness-coco')
    segmentor = table(40.0, (30.0, 20.0), (10.0, 10.0), task='segmentation', metric='mIoU')
    write_table(segmentor, tmp_path / 'only' / 'robustness')
    page = Page(
        write_report(read_runs([*specs, f'base={tmp_path}/only']), tmp_path / 'o').read_text()
    )
    assert page.sections == ['robustness', 'robustness-coco', 'robustness']
    assert 'Corruptions: robustness-coco' in page.text
    for seed in (1, 2):
        assert f'ours seed {seed} has no table of robustness in its folder' in page.text
    # One name may stand for a detector and a segmentor; they are not seeds of each other.
    assert page.cells['base', 'mIoU', 'P'] == [40.0, None, 1.0]
    assert page.cells['base', 'coco/bbox_mAP', 'P'] == [0.5, None, 1.0]


def test_a_run_with_a_log_only(tmp_path):
    (spec,) = make_dirs(tmp_path, {'base': TABLES['base']})
    run = Path(spec.partition('=')[2])
    shutil.rmtree(run / 'robustness')
    (run / 'adversarial.json').unlink()
    page = Page(write_report(read_runs([spec]), tmp_path / 'o').read_text())
    assert page.sections == []
    assert page.cells['base', 'cost', 'seconds'] == [0.5, None, 1.0]


def test_a_name_keeps_its_colour():
    names = [f'run {i}' for i in range(20)]
    style = styles(names, 'run 3')
    assert len(set(style.values())) == len(names)
    assert styles(names, 'run 3') == style
    assert style['run 3'].color not in {s.color for n, s in style.items() if n != 'run 3'}


# Examples.


def test_examples_in_a_grid(monkeypatch, tmp_path):
    class Brush:
        def __init__(self, cfg, checkpoint):
            self.level = {'a.pth': 200, 'b.pth': 100}[checkpoint]

        def __call__(self, loader, indices):
            if loader == 'broken':
                raise KeyError('no such layer')
            shape = 24, 32, 3
            return [(np.zeros(shape, np.uint8), np.full(shape, self.level + i)) for i in indices]

    monkeypatch.setattr(predictions, 'Painter', Brush)
    loaders = {
        'a': {'clean': 'a0', 'fog 3': 'a1'},
        'b': {'clean': 'b0', 'fog 3': 'broken'},
    }
    checkpoints = {'a': 'a.pth', 'b': 'b.pth'}
    rendered, failed = render_predictions({'a': {}, 'b': {}}, checkpoints, loaders, [7, 9])
    assert [set(rendered[index]) for index in (7, 9)] == [{('a', 'clean'), ('a', 'fog 3')}] * 2
    assert rendered[9]['a', 'clean'][1].max() == 209
    assert 'no such layer' in str(failed['b'])
    figure = draw_predictions(rendered[7])
    assert len(figure.axes) == 4
    shown = {'detection': Examples([(figure, 'Test image 7')], ['b is not shown'])}
    runs = read_runs(make_dirs(tmp_path))
    page = Page(write_report(runs, tmp_path / 'o', examples=shown).read_text())
    assert 'Test image 7' in page.text
    assert 'b is not shown' in page.text
    (image,) = (i for i in page.images if i['src'].startswith('data:image/jpeg'))
    file = Image.open(tmp_path / 'o/report_pictures/detection-example.png').convert('L')
    inlined = base64.b64decode(image['src'].partition('base64,')[2])
    inlined = Image.open(io.BytesIO(inlined)).convert('L')
    assert file.size == inlined.size
    assert np.abs(np.subtract(file, inlined, dtype=float)).mean() < 3


def test_pictures_have_the_size_and_the_colours_of_the_file():
    """Resized by two thirds and padded above and below."""
    blue = np.zeros((64, 60, 3), np.uint8)
    blue[4:44, :, 2] = 255
    sample = DataSample(metainfo=dict(ori_shape=(60, 90)))
    image = predictions._file(blue, sample, predictions.Region(4, 0, 44, 60))
    assert image.shape == (60, 90, 3)
    assert (image == (0, 0, 255)).all()


# The tool.


def load_tool():
    spec = importlib.util.spec_from_file_location('report_tool', TOOL)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_tool(tmp_path):
    """Examples that cannot be made are a note."""
    out = tmp_path / 'o'
    options = ['--out', out, '--title', 'Mine', '--baseline', 'ours']
    specs = make_dirs(tmp_path)
    ours = next(Path(spec.partition('=')[2]) for spec in specs if spec.startswith('ours='))
    (ours / 'cfg.py').write_text("default_scope = 'mmdet'\n")
    (ours / 'last_checkpoint').write_text('last.pth')
    (ours / 'last.pth').touch()
    result = launch(TOOL, *specs, *options, '--resamples', '50')
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.splitlines()[-1] == str(out / 'report.html')
    page = Page((out / 'report.html').read_text())
    assert 'Mine' in page.text
    assert 'base is not shown: no config' in page.text
    assert '--resamples 50: no interval over test images for any name' in page.text
    assert '--resamples 50' in result.stderr
    assert "ours is not shown: 'ConfigDict' object has no attribute 'test_dataloader'" in page.text
    assert page.shown['base', 'coco/bbox_mAP', 'mPC', 'difference'] == '-0.0250'


@pytest.mark.parametrize(
    ('args', 'message'),
    [
        (['{folder}/gone'], 'gone is no directory'),
        (['{run}', '--baseline', 'x'], '--baseline x: choose one of base'),
        (['{run}', '--corruption', 'sleet', '3'], '--corruption sleet 3'),
        (['{run}', *['--corruption', 'fog', '3'] * 4], 'at most 3'),
    ],
)
def test_tool_says_what_is_wrong(tmp_path, capsys, args, message):
    run = make_dirs(tmp_path)[0]
    args = [arg.format(folder=tmp_path, run=run) for arg in args]
    with pytest.raises(SystemExit) as caught:
        load_tool().main([*args, '--out', str(tmp_path / 'o')])
    # Of the options it is printed by argparse.
    assert message in f'{caught.value} {capsys.readouterr().err}'
    assert not (tmp_path / 'o').exists()


# In a browser.

BROWSER = next(
    filter(None, map(shutil.which, ('chromium', 'chromium-browser', 'google-chrome'))), None
)


def browse(path, profile, *args):
    quiet = ['disable-background-networking', 'disable-component-update', 'disable-sync']
    options = ['headless', 'no-sandbox', 'disable-gpu', 'no-first-run', *quiet]
    command = [BROWSER, *(f'--{o}' for o in options), f'--user-data-dir={profile}', *args]
    result = subprocess.run(
        [*command, path.as_uri()], capture_output=True, text=True, timeout=180, check=True
    )
    return result.stdout


@pytest.mark.skipif(BROWSER is None, reason='needs Chromium')
def test_in_a_browser(written, tmp_path):
    path, page = written
    seen = Page(browse(path, tmp_path / 'profile', '--dump-dom'))
    assert seen.cells == page.cells
    assert seen.cells['ours', 'coco/bbox_mAP', 'P'][0] == pytest.approx(0.5)
    assert len(seen.images) == len(page.images) == 7
    # Each figure takes its place with its colours: a page without them, or with broken ones, has
    # none of theirs at a height that no table reaches.
    shots = []
    for name, text in (('whole', path.read_text()), ('broken', broken(path.read_text()))):
        copy = tmp_path / f'{name}.html'
        copy.write_text(text)
        shot = tmp_path / f'{name}.png'
        browse(copy, tmp_path / 'profile', '--window-size=1200,4000', f'--screenshot={shot}')
        shots.append(np.asarray(Image.open(shot).convert('RGB')))
    whole, without = shots
    assert whole.std() > 10
    assert drawn_blue(whole) > 20 * max(drawn_blue(without), 1)


def broken(text):
    return text.replace('base64,iVBOR', 'base64,AAAAA')


def drawn_blue(image):
    """Pixels of the second run's colour, which bars and lines have."""
    return int((np.abs(image.astype(int) - (0x00, 0x72, 0xB2)).max(-1) < 6).sum())


# Six seeds of two names: is it better, is it sure, what does it cost.

SEEDS = (0.0, 0.01, -0.02, 0.005, -0.01, 0.02)


def six_seeds(folder, gain=(0.04, 0.1), cost=1.5):
    """Work directories whose second name gains ``gain`` clean and under noise, a bit more with
    every seed.
    """
    for name, plus in {'base': (0.0, 0.0), 'ours': gain}.items():
        for seed, wobble in enumerate(SEEDS):
            run = folder / f'{name}{seed}'
            clean, noise = 0.6 + wobble + plus[0], 0.3 - wobble + plus[1] * (1 + seed / 10)
            write_table(table(clean, (noise, noise - 0.1), (0.5, 0.5)), run / 'robustness')
            (run / 'cfg.py').write_text(f'randomness = dict(seed={seed})\n')
            if name == 'ours':
                (run / 'cost.json').write_text(json.dumps({'stock_steps': cost}))
    return [f'{name}={folder / f"{name}{seed}"}' for name in ('base', 'ours') for seed in range(6)]


def test_three_questions_are_answered_at_first_sight(tmp_path):
    runs = read_runs(six_seeds(tmp_path))
    page = Page(write_report(runs, tmp_path / 'o').read_text())
    words = {k[2]: v for k, v in page.shown.items() if k[0] == 'ours' and k[3] == 'value'}
    assert words['better'] == 'under corruption +0.0625, clean +0.0400'
    assert words['sure'] == 'under corruption: better (p 0.031); clean: better (p 0.031)'
    assert words['cost'] == '1.50 stock steps'
    # Runs are named by their seeds, and come last.
    assert page.text.index('is it better?') < page.text.index('seed 0') < page.text.index('seed 5')
    # Before any other table, and one row without the baseline.
    assert page.text.index('is it better?') < page.text.index('rPC')
    assert not [key for key in page.cells if key[0] == 'base' and key[2] == 'cost']
    cell = next(a for t, a in page.tags if a.get('data-key') == 'mPC difference')
    assert float(cell['data-value']) == pytest.approx(0.0625)
    assert float(cell['data-p']) == 2 / 2**6
    assert float(cell['data-low']) < 0.0625 < float(cell['data-high'])
    assert '0, 114, 178' in cell['style']
    worst = next(a for t, a in page.tags if a.get('data-key') == 'worst difference')
    assert float(worst['data-value']) == pytest.approx(0.125)


def test_what_is_not_sure_has_no_colour(tmp_path):
    specs = six_seeds(tmp_path, gain=(0.0, 0.0))
    page = Page(write_report(read_runs(specs), tmp_path / 'o').read_text())
    assert page.shown['ours', 'coco/bbox_mAP', 'sure', 'value'].count('not told apart') == 2
    few = [spec for spec in specs if spec[-1] in '01']
    seen = Page(write_report(read_runs(few), tmp_path / 'p').read_text())
    assert seen.shown['ours', 'coco/bbox_mAP', 'sure', 'value'].count('too few seeds') == 2
    for one in (page, seen):
        keys = [a for _, a in one.tags if a.get('data-key', '').endswith(' difference')]
        assert keys
        assert not any('style' in a for a in keys)


def test_columns_with_fewer_pairs_say_so(tmp_path):
    specs = six_seeds(tmp_path)
    for spec in specs:
        if spec.endswith('0'):
            path = Path(spec.partition('=')[2], 'robustness/robustness.json')
            result = json.loads(path.read_text())
            path.write_text(json.dumps(result | dict(also=dict(night=result['clean']))))
    page = Page(write_report(read_runs(specs), tmp_path / 'o').read_text())
    assert '6 pairs' in page.text
    assert page.shown['ours', 'coco/bbox_mAP', 'night difference', 'spread'] == '1 pair only'


def test_longer_training_is_cost(tmp_path):
    specs = six_seeds(tmp_path)
    for spec in specs:
        name, path = spec.split('=')
        log = Path(path, '20260101_000000', 'vis_data', 'scalars.json')
        log.parent.mkdir(parents=True)
        last = 200 if name == 'ours' else 100
        log.write_text(json.dumps(dict(iter=last, loss=1.0, time=0.1)) + '\n')
    page = Page(write_report(read_runs(specs), tmp_path / 'o').read_text())
    cost = 'ours', 'coco/bbox_mAP', 'cost'
    assert page.shown[(*cost, 'value')] == '1.50 stock steps, in 2.00 × as many iterations'
    assert page.cells[cost][0] == 3.0
    # A stock step is one of the run's own batch size.
    for spec in specs:
        name, path = spec.split('=')
        size = 2 if name == 'ours' else 8
        with Path(path, 'cfg.py').open('a') as config:
            config.write(f'train_dataloader = dict(batch_size={size})\n')
    page = Page(write_report(read_runs(specs), tmp_path / 'q').read_text())
    assert page.shown[(*cost, 'value')].endswith('iterations, on 0.50 × as many images')
    assert page.cells[cost][0] == 0.75
    for spec in specs:
        Path(spec.split('=')[1], 'cost.json').unlink(missing_ok=True)
    page = Page(write_report(read_runs(specs), tmp_path / 'p').read_text())
    assert page.shown[(*cost, 'value')].startswith('1.00 × base, by the times in logs')


def test_a_baseline_with_a_method_in_place_is_not_of_stock_steps(tmp_path):
    """It adds no loss, but what it measures is in the log."""
    specs = [f'{name}={tmp_path / name}' for name in ('base', 'ours')]
    for name in ('base', 'ours'):
        run = tmp_path / name
        write_table(TABLES['base'][0], run / 'robustness')
        log = run / '20260101_000000' / 'vis_data' / 'scalars.json'
        log.parent.mkdir(parents=True)
        record = {'iter': 10, 'loss': 1.0, 'time': 0.1}
        log.write_text(
            json.dumps(record | {'mixstyle.linf': 0.5, 'feature_aug.active': 1.0}) + '\n'
        )
    page = Page(write_report(read_runs(specs), tmp_path / 'o').read_text())
    shown = page.shown['ours', 'coco/bbox_mAP', 'cost', 'value']
    assert shown == 'not known: base has a method and no cost.json'


def test_nothing_is_far_where_nothing_is_near(tmp_path):
    page = Page(write_report(read_runs(six_seeds(tmp_path)), tmp_path / 'o').read_text())
    keys = {key[2] for key in page.cells}
    assert 'mPC difference' in keys
    assert 'far difference' not in keys
    # Now one trains near some of the corruptions.
    for seed in range(6):
        (tmp_path / f'ours{seed}' / 'cfg.py').write_text(
            f'custom_hooks = [{NOISY}]\nrandomness = dict(seed={seed})\n'
        )
    specs = [f'{name}={tmp_path / f"{name}{s}"}' for name in ('base', 'ours') for s in range(6)]
    page = Page(write_report(read_runs(specs), tmp_path / 'p').read_text())
    assert {'near difference', 'far difference'} <= {key[2] for key in page.cells}


NOISY = """dict(
    type='mmfeataug.FeatureAugHook',
    augmentations=[
        dict(
            type='mmfeataug.DistortImages',
            distortions=[dict(type='RandomGaussianNoise', std=0.1)],
        )
    ],
)"""


def test_one_pair_has_an_interval_over_images(tmp_path):
    specs = [spec for spec in six_seeds(tmp_path) if spec[-1] == '0']
    over = Difference(0.04, 0.01, 0.07, None, 1, over='images')
    images = {'detection': {'robustness': {'ours': {'P': over}}}}
    page = Page(write_report(read_runs(specs), tmp_path / 'o', images=images).read_text())
    assert page.shown['ours', 'coco/bbox_mAP', 'P difference', 'spread'] == '[0.0100, 0.0700]'
    assert ('ours', 'coco/bbox_mAP', 'mPC difference', 'spread') not in page.shown
    assert 'over the test images' in page.text
    assert 'too few seeds' in page.shown['ours', 'coco/bbox_mAP', 'sure', 'value']
