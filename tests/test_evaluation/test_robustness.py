# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Figures against tables worked out by hand, and the files that hold them."""

import ast
import csv
import json
import random
from pathlib import Path

import pytest

from mmfeataug.evaluation import (
    BENCHMARK,
    FAMILIES,
    SEVERITIES,
    complete,
    corruption_error,
    read_table,
    robustness,
    rows,
    select_corruptions,
    summarise,
    to_markdown,
    write_table,
)

NAN = float('nan')


def everywhere(value, names=BENCHMARK, metric='m'):
    return {name: {str(s): {metric: value} for s in SEVERITIES} for name in names}


def table(clean, corrupted, task='detection', **more):
    head = dict(config='c', checkpoint='c.pth', task=task, made_with={})
    return dict(head, clean=clean, corrupted=corrupted, **more)


@pytest.mark.parametrize('name', ['robustness', 'report'])
def test_needs_no_framework(name):
    path = Path(robustness.__file__).with_name(f'{name}.py')
    imported = {
        alias.name
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Import | ast.ImportFrom)
        for alias in [*node.names, ast.alias(getattr(node, 'module', None) or '')]
    }
    imported -= {'mmfeataug.utils.corruptions', 'mmfeataug.utils.files'}
    assert not [name for name in imported if name.startswith(('mm', 'torch'))]


def test_choice():
    assert select_corruptions(['benchmark']) == list(BENCHMARK)
    assert len(select_corruptions(['all'])) == 15 + 4 + len(FAMILIES['unseen'])
    assert select_corruptions(['unseen']) == list(FAMILIES['unseen'])
    assert select_corruptions(['fog', 'noise', 'fog']) == [*FAMILIES['noise'], 'fog']
    with pytest.raises(ValueError, match=r"'gausian_noise'.*mean gaussian_noise"):
        select_corruptions(['noise', 'gausian_noise'])
    with pytest.raises(ValueError, match='benchmark'):
        select_corruptions(['qqq'])


def test_perfect_and_constant_models():
    perfect = summarise({'m': 1.0}, everywhere(1.0), 'm')
    assert perfect == dict(
        P=1.0,
        mPC=1.0,
        rPC=1.0,
        worst=dict(corruption='gaussian_noise', value=1.0),
        families=dict.fromkeys(('noise', 'blur', 'weather', 'digital'), 1.0),
        severities=dict.fromkeys('12345', 1.0),
    )
    constant = summarise({'m': 12.34}, everywhere(12.34), 'm')
    assert constant['rPC'] == pytest.approx(1.0)
    useless = summarise({'m': 0.0}, everywhere(0.0), 'm')
    assert (useless['mPC'], useless['rPC']) == (0.0, None)


def rename(corrupted, metric):
    return {n: {s: {metric: v['m']} for s, v in by.items()} for n, by in corrupted.items()}


def test_worked_out_by_hand():
    corrupted = {
        'gaussian_noise': {'1': {'m': 40.0}, '2': {'m': 20.0}},  # mean 30
        'shot_noise': {'1': {'m': 30.0}, '2': {'m': 0.0}},  # mean 15
        'fog': {'1': {'m': 48.0}, '2': {'m': 42.0}},  # mean 45
        'saturate': {'1': {'m': 1.0}, '2': {'m': 1.0}},
    }
    assert summarise({'m': 50.0}, corrupted, 'm') == dict(
        P=50.0,
        mPC=30.0,
        rPC=0.6,
        # The extra ones are not counted.
        worst=dict(corruption='shot_noise', value=15.0),
        families=dict(noise=22.5, weather=45.0, extra=1.0),
        severities={'1': pytest.approx(118 / 3), '2': pytest.approx(62 / 3)},
    )
    miss_rates = summarise({'mMR': 50.0}, rename(corrupted, 'mMR'), 'mMR')
    assert miss_rates['worst'] == dict(corruption='fog', value=45.0)
    alone = summarise({'m': 50.0}, {'saturate': corrupted['saturate']}, 'm')
    assert alone['mPC'] == 1.0


def test_unseen_ones_have_a_mean_of_their_own():
    unseen = everywhere(0.3, FAMILIES['unseen'])
    result = complete(table({'m': 1.0}, everywhere(0.5) | unseen))
    summary = result['summary']['m']
    assert summary['mPC'] == pytest.approx(0.5)
    assert summary['severities'] == pytest.approx(dict.fromkeys('12345', 0.5))
    assert summary['families']['unseen'] == pytest.approx(0.3)
    assert result['notes'] == [f'not part of mPC: {", ".join(FAMILIES["unseen"])}']


def test_undefined_values_are_left_out():
    corrupted = {
        'fog': {'1': {'m': NAN}, '2': {'m': 4.0}},
        'snow': {'1': {'m': None}, '2': {'m': NAN}},
        'frost': {'1': {}, '2': {'m': 2.0}},
    }
    result = complete(table({'m': 6.0, 'never': NAN}, corrupted, 'segmentation'))
    assert result['metrics'] == ['m', 'never']
    summary = result['summary']['m']
    assert (summary['mPC'], summary['rPC']) == (3.0, 0.5)
    assert summary['severities'] == {'1': None, '2': 3.0}
    assert result['summary']['never']['P'] is None
    assert list(result['corrupted']) == ['snow', 'frost', 'fog']
    assert result['corrupted']['frost']['1'] == {'m': None, 'never': None}
    notes = '\n'.join(result['notes'])
    assert 'm is undefined under 4 of 7 conditions' in notes
    assert 'snow 1' in notes
    assert 'never is undefined on these data' in notes


def test_a_detector_that_finds_nothing_has_zero():
    """On clean images, too, whose metrics are not known before others have some."""
    fog = {'1': {'m': 0.2, 'miss_rate': 0.5}, '2': {}}
    result = complete(table({}, {'fog': fog}))
    assert result['clean'] == {'m': 0.0, 'miss_rate': None}
    assert result['summary']['m']['mPC'] == pytest.approx(0.1)


def test_notes_say_what_the_mean_is_over():
    whole = complete(table({'m': 1.0}, everywhere(0.5)))
    assert whole['notes'] == []
    more = complete(table({'m': 1.0}, everywhere(0.5, (*BENCHMARK, 'spatter'))))
    assert more['notes'] == ['not part of mPC: spatter']
    part = complete(table({'m': 1.0}, everywhere(0.5, ['fog'])), [('fog', 1), ('snow', 1)])
    assert 'unfinished: 1 of 2' in part['notes'][0]
    assert 'mPC is over fog at severity 1, 2, 3, 4, 5' in part['notes'][1]
    uneven = everywhere(0.5, ['fog']) | {'snow': {'1': {'m': 0.5}}, 'frost': {'1': {'m': 0.5}}}
    (note,) = complete(table({'m': 1.0}, uneven))['notes']
    assert 'over snow, frost at severity 1; fog at severity 1, 2, 3, 4, 5: published' in note


def test_notes_say_what_the_reference_lacks():
    def made(names, images):
        corrupted = everywhere(50.0, names, 'accuracy/top1')
        more = dict(made_with=dict(images=images))
        return table({'accuracy/top1': 90.0}, corrupted, 'classification', **more)

    alike = complete(made(BENCHMARK, 9), reference=made(BENCHMARK, 9))
    assert alike['notes'] == []
    other = complete(made(BENCHMARK, 9), reference=made(['fog'], 100))
    assert other['notes'][0] == 'mCE: the reference was tested on 100 images, this model on 9'
    assert other['notes'][1].startswith(
        'mCE is over 1 of 15 corruptions: the reference lacks gauss'
    )


def test_a_reference_that_serves_nothing_is_said():
    of = everywhere(50.0, metric='accuracy/top1')
    reference = table({'accuracy/top1': 90.0}, of, 'classification')
    for task, metric in (('segmentation', 'mIoU'), ('classification', 'a/top1')):
        one = complete(table({metric: 9.0}, everywhere(5.0, metric=metric), task), (), reference)
        assert one['notes'][0].startswith('the reference is not used: mCE is of accuracy/top')
        assert one['notes'][0].endswith(metric)
    other = everywhere(5.0, metric='accuracy/top5')
    one = complete(table({'accuracy/top5': 9.0}, other, 'classification'), (), reference)
    assert one['notes'][0] == 'mCE of accuracy/top5 is undefined: the reference has none'


def test_corruption_error():
    corrupted = {
        'fog': {'1': {'m': 90.0}, '2': {'m': 70.0}},  # errors 10, 30
        'snow': {'1': {'m': 50.0}, '2': {'m': 40.0}},  # errors 50, 60
        'saturate': {'1': {'m': 0.0}, '2': {'m': 0.0}},
    }
    reference = {
        'fog': {'1': {'m': 60.0}, '2': {'m': 60.0}},  # errors 40, 40
        'snow': {'1': {'m': 100.0}, '2': {'m': 0.0}},  # errors 0, 100
        'saturate': {'1': {'m': 0.0}, '2': {'m': 0.0}},
    }
    assert corruption_error(corrupted, 'm', reference) == dict(
        mCE=pytest.approx((40 / 80 + 110 / 100) / 2),
        CE=dict(fog=pytest.approx(0.5), snow=pytest.approx(1.1), saturate=1.0),
    )
    assert corruption_error(corrupted, 'm', corrupted)['mCE'] == 1.0
    assert corruption_error(corrupted, 'm') == dict(
        mean_error=37.5, errors=dict(fog=20.0, snow=55.0, saturate=100.0)
    )
    perfect = everywhere(100.0)
    assert corruption_error(perfect, 'm', everywhere(80.0))['mCE'] == 0.0
    assert corruption_error(everywhere(80.0), 'm', perfect)['mCE'] is None
    # What one of the two lacks is in neither sum.
    reference['fog']['1']['m'] = None
    assert corruption_error(corrupted, 'm', reference)['CE']['fog'] == pytest.approx(30 / 40)


def test_mce_is_for_accuracies_of_classifiers():
    corrupted = everywhere(60.0, metric='accuracy/top1')
    clean = {'accuracy/top1': 80.0, 'other': 1.0}
    assert complete(table(clean, corrupted))['mCE'] is None
    alone = complete(table(clean, corrupted, 'classification'))
    assert alone['mCE']['reference'] is None
    assert alone['mCE']['metrics']['accuracy/top1']['mean_error'] == 40.0
    assert list(alone['mCE']['metrics']) == ['accuracy/top1']
    other = table(clean, everywhere(20.0, metric='accuracy/top1'), 'classification')
    both = complete(table(clean, corrupted, 'classification'), reference=other)
    assert both['mCE']['metrics']['accuracy/top1']['mCE'] == 0.5
    assert both['mCE']['reference'] == dict(config='c', P=clean)
    assert 'mCE 0.500 of c' in to_markdown(both)


def some_table():
    draw = random.Random(0)
    scores = [{'coco/bbox_mAP': draw.random(), 'mIoU': 100 * draw.random()} for _ in range(76)]
    scores[7]['mIoU'] = NAN
    corrupted = {
        name: {str(s): scores[1 + 5 * i + s - 1] for s in SEVERITIES}
        for i, name in enumerate(BENCHMARK)
    }
    return complete(table(scores[0], corrupted))


def test_files_agree(tmp_path):
    result = some_table()
    write_table(result, tmp_path / 'new')
    assert read_table(tmp_path / 'new' / 'robustness.json') == result
    assert sorted(p.suffix for p in (tmp_path / 'new').iterdir()) == ['.csv', '.json', '.md']
    with (tmp_path / 'new' / 'robustness.csv').open() as file:
        lines = list(csv.DictReader(file))
    assert len(lines) == 76
    for line in lines:
        scores = result['corrupted'].get(line['corruption'], {}).get(line['severity'])
        scores = result['clean'] if line['corruption'] == 'clean' else scores
        for metric in result['metrics']:
            assert (float(line[metric]) if line[metric] else None) == scores[metric]
    text = (tmp_path / 'new' / 'robustness.md').read_text()
    for metric in result['metrics']:
        for line in rows(result, metric):
            assert '| ' + ' | '.join(line) + ' |' in text
    head, first, second, *_, last = rows(result, 'mIoU')
    assert head == ['corruption', '1', '2', '3', '4', '5', 'mean']
    value = result['corrupted']['gaussian_noise']['1']['mIoU']
    assert first[:2] == ['gaussian_noise', f'{value:.2f}']
    assert second[2] == '-'
    assert last[-1] == f'{result["summary"]["mIoU"]["mPC"]:.2f}'


def test_a_failed_write_leaves_the_old_table(tmp_path):
    result = some_table()
    write_table(result, tmp_path)
    before = (tmp_path / 'robustness.json').read_bytes()
    with pytest.raises(ValueError):
        write_table({**result, 'seconds': NAN}, tmp_path)
    assert (tmp_path / 'robustness.json').read_bytes() == before


def test_what_is_no_table(tmp_path):
    path = tmp_path / 'robustness.json'
    path.write_text('{"config": ')
    with pytest.raises(ValueError, match='no JSON'):
        read_table(path)
    path.write_text(json.dumps(dict(config='x')))
    with pytest.raises(ValueError, match='has no checkpoint, task'):
        read_table(path)


def test_nothing_found_yet():
    empty = complete(table({}, {}))
    assert empty['metrics'] == []
    assert 'the evaluator has returned no metric that is one number' in empty['notes'][0]
    assert to_markdown(empty).startswith('# Robustness of c')
    clean_only = complete(table({'m': 1.0}, {}))
    assert clean_only['summary']['m']['mPC'] is None
    assert '| m | 1.0000 | - | - |' in to_markdown(clean_only)
    assert '`, 87 test images\n' in to_markdown(clean_only | dict(made_with=dict(images=87)))


def test_the_worst_corruption():
    """By the mean over severities, of those that are counted; the most of an error."""
    corrupted = {
        'fog': {'1': {'m': 1.0, 'rmse': 5.0}, '2': {'m': 9.0, 'rmse': 5.0}},
        'snow': {'1': {'m': 4.0, 'rmse': 2.0}, '2': {'m': 4.0, 'rmse': 2.0}},
        'frost': {'1': {'m': NAN}, '2': {'m': None}},
        'spatter': {'1': {'m': 0.0, 'rmse': 90.0}},
    }
    assert summarise({}, corrupted, 'm')['worst'] == dict(corruption='snow', value=4.0)
    assert summarise({}, corrupted, 'rmse')['worst'] == dict(corruption='fog', value=5.0)
    assert summarise({}, corrupted, 'other')['worst'] is None
    result = complete(table({'m': 8.0}, corrupted, also={'night': {'m': 2.0, 'x': NAN}}))
    assert 'worst snow 4.00, night 2.00' in to_markdown(result)
    assert result['also'] == {'night': {'m': 2.0, 'x': None}}
    assert 'x' not in result['metrics']
