# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Work directories as they lie on disk, and their comparison against numbers worked out by hand."""

import json
import statistics

import pytest

from mmfeataug.evaluation import complete, write_table
from mmfeataug.evaluation.comparison.compare import compare_tables, spread
from mmfeataug.evaluation.comparison.compare_attacks import compare_attacks
from mmfeataug.evaluation.comparison.logs import (
    clean_loss,
    cost,
    method_scalars,
    methods_in,
    read_log,
    view_losses,
)
from mmfeataug.evaluation.comparison.runs import Run, by_task, read_run, read_runs
from mmfeataug.visualization.report.parts import describe_attack


def table(clean, corrupted, task='detection', config='cfg', wanted=(), reference=None, metric='m'):
    """Scores of one metric: ``corrupted`` is ``{name: {severity: value}}``."""
    scores = {n: {str(s): {metric: v} for s, v in by.items()} for n, by in corrupted.items()}
    base = dict(config=config, checkpoint=f'{config}.pth', task=task, clean={metric: clean})
    return complete({**base, 'corrupted': scores, 'made_with': {}}, wanted, reference)


def make_run(folder, result=None, records=(), where='robustness'):
    if result is not None:
        write_table(result, folder / where)
    if records:
        write_log(folder, '20260101_000000', records)
    return folder


def write_log(folder, time, records):
    path = folder / time / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(''.join(json.dumps(record) + '\n' for record in records))
    return path


def attack(folder, curve, where='adversarial', **settings):
    points = [dict(eps=e, metrics={'m': v}, loss=0.0, step_size=0.1) for e, v in curve.items()]
    head = dict(config='cfg.py', checkpoint='c.pth', task='detection', attack='pgd', at='inputs')
    head |= dict(side='output', norm='linf', steps=3, step_size=None, against=[], seed=0)
    head |= dict(unit='pixel', random_start=True, image_range=None, restarts=1, made_with={})
    (folder / where).mkdir(parents=True)
    text = json.dumps({**head, **settings, 'curve': points})
    (folder / where / 'adversarial.json').write_text(text)


def comparison(*runs, task='detection'):
    (one,) = compare_tables(task, by_task(runs)[task])
    return one


FOG = {'fog': {1: 40.0, 2: 20.0}}


# Names and directories.


def test_names(tmp_path):
    for name in ('a', 'b', 'c'):
        make_run(tmp_path / name, table(50.0, FOG, config=f'conf_v1.{name}'))
    runs = read_runs([f'{tmp_path}/a', f'other={tmp_path}/b', f'other={tmp_path}/c'])
    assert [run.name for run in runs] == ['conf_v1.a', 'other', 'other']
    assert {n: len(g) for n, g in by_task(runs)['detection'].items()} == {
        'conf_v1.a': 1,
        'other': 2,
    }


def test_name_of_the_dumped_config(tmp_path):
    run = make_run(tmp_path / 'wd', records=[dict(iter=1, loss=1.0)])
    (run / 'my_config.py').write_text("default_scope = 'mmseg'\n")
    (found,) = read_runs([str(run)])
    assert (found.name, found.tasks) == ('my_config', ['segmentation'])


def test_the_config_is_that_of_the_training(tmp_path):
    """Testing in the same directory dumps another one over the first."""
    run = make_run(tmp_path / 'wd', records=[dict(iter=1, loss=1.0)])
    (run / 'my_config.py').write_text("default_scope = 'mmdet'\ncorrupted = True\n")
    config = run / '20260101_000000' / 'vis_data' / 'config.py'
    config.write_text("default_scope = 'mmseg'\nlog_processor = dict(window_size=50)\n")
    tested = write_log(run, '20260102_000000', [dict(mAP=0.5, step=1)])
    tested.with_name('config.py').write_text("default_scope = 'mmdet'\n")
    found = read_run(run)
    assert (found.name, found.config, found.window) == ('my_config', config, 50)
    assert found.tasks == ['segmentation']


def test_a_config_that_fails_is_a_note(tmp_path):
    run = make_run(tmp_path / 'wd', table(50.0, FOG))
    (run / 'cfg.py').write_text('raise RuntimeError("nothing here")')
    found = read_run(run)
    assert 'nothing here' in found.notes[0]
    assert 'cfg.py' in found.notes[0]


def test_a_directory_with_an_equals_sign(tmp_path):
    make_run(tmp_path / 'lr=1', table(50.0, FOG))
    (found,) = read_runs([str(tmp_path / 'lr=1')])
    assert found.folder == tmp_path / 'lr=1'
    (found,) = read_runs([f'x={tmp_path}/lr=1'])
    assert (found.name, found.folder) == ('x', tmp_path / 'lr=1')


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(ValueError, match='gone is no directory'):
        read_runs([str(tmp_path / 'gone')])
    (tmp_path / 'empty').mkdir()
    with pytest.raises(ValueError, match='empty has nothing to show'):
        read_runs([f'x={tmp_path}/empty'])
    run = make_run(tmp_path / 'r', table(50.0, FOG))
    with pytest.raises(ValueError, match='there twice'):
        read_runs([f'a={run}', f'b={run}/.'])


def test_a_killed_run_leaves_half_a_line(tmp_path):
    path = tmp_path / 'run' / '1' / 'vis_data' / 'scalars.json'
    path.parent.mkdir(parents=True)
    path.write_text('{"iter": 1, "loss": 2}\n{"iter": 2, "lo')
    assert [record['iter'] for record in read_run(tmp_path / 'run').log] == [1]


@pytest.mark.parametrize(
    ('name', 'text', 'why'),
    [
        ('robustness/robustness.json', '{"config": "c", ', 'no JSON'),
        ('robustness/robustness.json', '{"config": "c"}', 'no table'),
        ('adversarial.json', '{"config": ', 'no JSON'),
        ('adversarial.json', '[]', 'no result of an attack'),
        ('cost.json', '{}', 'no result of tools/analysis_tools/measure_cost.py'),
        ('1/vis_data/scalars.json', '{"iter": 1, "loss": 2}\n{"iter": 2, "lo\n', 'line 2'),
        ('1/vis_data/scalars.json', '3\n', 'line 1'),
    ],
)
def test_broken_files_are_named(tmp_path, name, text, why):
    path = tmp_path / name
    path.parent.mkdir(parents=True, exist_ok=True)
    make_run(tmp_path, records=[dict(iter=1, loss=1.0)])
    path.write_text(text)
    with pytest.raises(ValueError, match=why) as caught:
        read_run(tmp_path)
    assert str(path) in str(caught.value)


def test_checkpoint_is_that_of_the_table_wherever_it_went(tmp_path):
    run = make_run(tmp_path / 'r', table(50.0, FOG, config='best'))
    (run / 'last_checkpoint').write_text('/elsewhere/iter_9.pth')
    assert read_run(run).checkpoint is None
    (run / 'iter_9.pth').touch()
    assert read_run(run).checkpoint == run / 'iter_9.pth'
    (run / 'best.pth').touch()
    assert read_run(run).checkpoint == run / 'best.pth'


def test_runs_of_an_unknown_task_go_with_the_only_other(tmp_path):
    known = Run('a', tmp_path, tables={'.': table(1.0, FOG)})
    silent = Run('b', tmp_path / 'b', log=[dict(iter=1, loss=1.0)])
    assert list(by_task([silent, known])['detection']) == ['b', 'a']
    other = Run('c', tmp_path / 'c', tables={'.': table(1.0, FOG, task='segmentation')})
    assert list(by_task([known, other, silent])) == ['detection', 'segmentation', 'unknown task']


# Logs.


def test_resumed_logs_are_merged(tmp_path):
    write_log(tmp_path, '20260101_00', [dict(iter=i, loss=float(i)) for i in (10, 20, 30)])
    write_log(tmp_path, '20260102_00', [dict(iter=30, loss=-1.0), dict(mAP=0.5, step=1)])
    assert [(r['iter'], r['loss']) for r in read_log(tmp_path)] == [(10, 10), (20, 20), (30, -1)]


def test_a_log_under_another_name(tmp_path):
    """``scalar_save_file`` of the backend; mmengine writes a second file named by the time."""
    records = [dict(iter=i, loss=float(i)) for i in (10, 20)]
    for name in ('curves.json', '20260101_00.json', 'meta.json'):
        write_log(tmp_path, '20260101_00', records if name != 'meta.json' else [dict(mAP=0.5)])
        path = tmp_path / '20260101_00/vis_data/scalars.json'
        path.rename(path.with_name(name))
    (tmp_path / '20260101_00/vis_data/config.py').write_text("default_scope = 'mmdet'\n")
    write_log(tmp_path, '20260102_00', [dict(iter=20, loss=-1.0)])
    run = read_run(tmp_path)
    assert [(r['iter'], r['loss']) for r in run.log] == [(10, 10), (20, -1)]
    assert run.tasks == ['detection']


def test_a_run_begun_anew_replaces_the_old_one(tmp_path):
    write_log(tmp_path, '20260101_00', [dict(iter=i, loss=9.0) for i in range(50, 1001, 50)])
    write_log(tmp_path, '20260102_00', [dict(iter=i, loss=1.0) for i in (50, 100)])
    assert [(r['iter'], r['loss']) for r in read_log(tmp_path)] == [(50, 1.0), (100, 1.0)]


@pytest.mark.parametrize('resume', [False, True])
def test_whether_a_run_began_anew_is_in_its_config(tmp_path, resume):
    """With another log interval, iterations do not say it."""
    write_log(tmp_path, '20260101_00', [dict(iter=i, loss=9.0) for i in (10, 20)])
    write_log(tmp_path, '20260102_00', [dict(iter=i, loss=1.0) for i in (50, 100)])
    (tmp_path / '20260102_00/vis_data/config.py').write_text(f'resume = {resume}\n')
    found = [r['iter'] for r in read_log(tmp_path)]
    assert found == ([10, 20, 50, 100] if resume else [50, 100])


def test_hierarchical_names(tmp_path):
    terms = {'train/loss': 1.0, 'train/loss_cls': 0.6, 'train/loss_bbox': 0.4, 'train/time': 2.0}
    write_log(tmp_path, '20260101_00', [{'iter': 10, **terms}])
    records = read_log(tmp_path)
    assert clean_loss(records) == [(10, pytest.approx(1.0))]
    assert cost(records) == {'seconds': 2.0}


def test_terms_of_a_log():
    stock = {'decode.loss_ce': 0.6, 'aux.loss_ce': 0.4, 'decode.acc_seg': 70.0, 'lr': 0.1}
    ours = {'afan.loss_0': 0.3, 'afan2.loss_0': 0.2, 'afan.linf': 0.1, 'feature_aug.active': 1.0}
    ours['feature_aug.clean_weight'] = 0.5
    records = [{'iter': 10, 'loss': 1.5, **stock, **ours}, {'iter': 20, 'loss': 1.0, **stock}]
    assert methods_in(records) == {'afan', 'afan2', 'feature_aug'}
    assert clean_loss(records[:1]) == [(10, pytest.approx(2.0))]
    # A stock run logs no weight.
    assert clean_loss(records[1:]) == [(20, pytest.approx(1.0))]
    assert view_losses(records) == {'afan.loss_0': [(10, 0.3)], 'afan2.loss_0': [(10, 0.2)]}
    assert method_scalars(records) == {
        'afan.linf': [(10, 0.1)],
        'feature_aug.active': [(10, 1.0)],
        'feature_aug.clean_weight': [(10, 0.5)],
    }


@pytest.mark.parametrize(
    'active', [lambda i: i > 60, lambda i: i <= 60, lambda i: i % 2 == 0, lambda i: True]
)
@pytest.mark.parametrize(('window', 'interval'), [(50, 4), (10, 10), (10, 50)])
def test_clean_loss_is_what_stock_would_have_logged(active, window, interval):
    """mmengine logs means over a window of iterations; the true loss is 1 in all of them."""
    logged = [0.5 if active(i) else 1.0 for i in range(1, 201)]
    turns = [active(i) for i in range(1, 201)]
    records = [
        {
            'iter': i,
            'loss_cls': statistics.fmean(logged[max(0, i - window) : i]),
            'feature_aug.clean_weight': 1 - 0.5 * sum(turns[:i]) / i,
        }
        for i in range(interval, 201, interval)
    ]
    # Between two records nobody knows where views began.
    rough = 0.35 if interval > window else 0.03
    assert all(v == pytest.approx(1.0, abs=rough) for _, v in clean_loss(records, window))


def test_a_log_knows_the_clean_weight():
    """As a mean over all iterations so far; here views came in the second half, in each other one
    with all the weight left to the clean loss."""
    weights = [1.0] * 50 + [0.5, 1.0] * 25
    records = [
        {
            'iter': i,
            'loss_cls': statistics.fmean(weights[i - 10 : i]),
            'feature_aug.active': max(0, i - 50) / i,
            'feature_aug.clean_weight': statistics.fmean(weights[:i]),
            'afan.loss_0': 0.1,
            'afan.rise': 0.2,
        }
        for i in range(10, 101, 10)
    ]
    assert all(v == pytest.approx(1.0) for _, v in clean_loss(records, window=10))
    assert method_scalars(records)['afan.rise'] == [(i, 0.2) for i in range(60, 101, 10)]


def test_curves_of_views_end_with_them():
    records = [
        {'iter': i, 'afan.loss_0': 0.1, 'afan.linf': 0.2, 'feature_aug.active': min(1.0, 20 / i)}
        for i in (10, 20, 30, 40)
    ]
    assert [i for i, _ in view_losses(records, window=5)['afan.loss_0']] == [10, 20]
    scalars = method_scalars(records, window=5)
    assert [i for i, _ in scalars['afan.linf']] == [10, 20]
    assert [i for i, _ in scalars['feature_aug.active']] == [10, 20, 30, 40]


def test_the_only_term_of_a_classifier_is_called_loss():
    record = {'iter': 1, 'loss': 0.7, 'afan.loss_0': 0.7, 'feature_aug.clean_weight': 0.5}
    assert clean_loss([record]) == [(1, pytest.approx(1.4))]


def test_cost():
    records = [
        dict(iter=i, time=t, memory=m) for i, t, m in ((1, 9.0, 5), (2, 1.0, 7), (3, 2.0, 6))
    ]
    assert cost(records) == dict(seconds=2.0, memory=7.0)
    assert cost([dict(iter=1, loss=1.0)]) == {}


# Tables.


def test_spread():
    values = [0.5, 0.7, 0.9]
    of = spread([*values, None, float('nan')])
    assert (of.mean, of.std, of.n) == (pytest.approx(0.7), pytest.approx(0.2), 3)
    assert spread([0.5]).std is None
    assert spread([None]) is None


def test_seeds(tmp_path):
    """Means and deviations of what each table says of itself."""
    tables = [table(p, {'fog': {1: q, 2: q / 2}}) for p, q in ((50.0, 40.0), (60.0, 30.0))]
    runs = [Run('x', tmp_path / str(i), tables={'robustness': t}) for i, t in enumerate(tables)]
    row = comparison(*runs).summary['m']['x']
    for key in ('P', 'mPC', 'rPC'):
        own = [t['summary']['m'][key] for t in tables]
        assert row[key].mean == pytest.approx(statistics.fmean(own))
        assert row[key].std == pytest.approx(statistics.stdev(own))
        assert row[key].n == 2
    assert row['mPC'].mean == pytest.approx((30 + 22.5) / 2)
    assert row['weather'] == row['mPC']


def test_only_shared_conditions_are_compared(tmp_path):
    wide = table(50.0, {'fog': {1: 40.0, 2: 20.0, 3: 0.0}, 'snow': {1: 10.0, 2: 10.0}})
    narrow = table(50.0, {'fog': {1: 30.0, 2: 10.0}})
    one = comparison(
        Run('wide', tmp_path / 'a', tables={'.': wide}),
        Run('narrow', tmp_path / 'b', tables={'.': narrow}),
    )
    assert one.summary['m']['wide']['mPC'].mean == 30.0
    assert one.summary['m']['narrow']['mPC'].mean == 20.0
    assert list(one.corruptions['m']['wide']) == ['fog']
    assert list(one.severities['m']['wide']) == ['0', '1', '2']
    assert 'over the 2 corrupted conditions' in one.notes[0]
    assert '3 are left out' in one.notes[0]
    assert 'fog 3, snow 1, snow 2' in one.notes[0]
    alone = comparison(Run('wide', tmp_path / 'a', tables={'.': wide}))
    assert alone.summary['m']['wide']['mPC'].mean == wide['summary']['m']['mPC'] == 15.0
    assert not any('left out' in note for note in alone.notes)


def test_a_seed_without_metrics_is_said(tmp_path):
    whole = table(50.0, {'fog': {1: 40.0}})
    empty = dict(table(50.0, {}), clean={}, metrics=[], summary={})
    one = comparison(
        Run('a', tmp_path, tables={'.': whole}), Run('a', tmp_path / 'b', tables={'.': empty})
    )
    assert one.summary['m']['a']['P'].n == 1
    assert one.summary['m']['a']['weather'].mean == 40.0
    assert 'the table of a seed 2 in its folder . has no metric at all' in one.notes
    assert one.missing == []


def test_other_test_sets_are_said(tmp_path):
    tables = [dict(table(50.0, FOG), made_with=dict(images=n)) for n in (16, 5000)]
    runs = [Run(f'{n}', tmp_path / f'{n}', tables={'.': t}) for n, t in enumerate(tables)]
    one = comparison(*runs)
    assert (
        'different numbers of test images (16, 5000): differences between these mean little'
        in one.notes
    )


def test_tests_of_other_data_or_evaluators_are_said(tmp_path):
    made = [dict(test='a', also=dict(night='x', rain='y')), dict(test='b', also=dict(night='z'))]
    tables = [dict(table(50.0, FOG), made_with=one) for one in made]
    runs = [Run(f'{n}', tmp_path / f'{n}', tables={'.': t}) for n, t in enumerate(tables)]
    notes = ' '.join(comparison(*runs).notes)
    assert 'test sets or evaluators are written differently' in notes
    assert 'night: 2 test sets have this name' in notes
    assert 'rain' not in notes
    alike = comparison(runs[0], Run('2', tmp_path, tables={'.': tables[0]}))
    assert 'differences may come' not in ' '.join(alike.notes)


def test_a_metric_that_all_have_is_the_main_one(tmp_path):
    both = table(50.0, FOG, metric='coco/bbox_mAP')
    one = [Run('base', tmp_path / 'a', tables={'.': both})]
    one.append(Run('ours', tmp_path / 'b', tables={'.': table(40.0, FOG, metric='voc/mAP')}))
    found = comparison(*one)
    assert found.metrics[0] == 'coco/bbox_mAP'
    assert 'ours: no coco/bbox_mAP in the tables, so that it compares nothing' in ' '.join(
        found.notes
    )
    both['clean']['m'] = 1.0
    both['metrics'] = [*both['metrics'], 'm']
    one[1] = Run('ours', tmp_path / 'b', tables={'.': table(40.0, FOG)})
    assert comparison(*one).metrics[0] == 'm'


def test_a_checkpoint_written_again_is_said(tmp_path):
    path = tmp_path / 'epoch_1.pth'
    path.write_text('weights')
    stat = path.stat()
    made = dict(size=stat.st_size, mtime=stat.st_mtime_ns)
    result = dict(table(50.0, FOG), checkpoint=str(path), made_with=made)
    assert not read_run(make_run(tmp_path / 'run', result)).notes
    path.write_text('other weights')
    (note,) = read_run(tmp_path / 'run').notes
    assert f'{path} was written again since it was tested' in note


def test_where_one_is_undefined_nobody_is_counted(tmp_path):
    a = table(50.0, {'fog': {1: 40.0, 2: None}})
    b = table(50.0, {'fog': {1: 30.0, 2: 10.0}})
    one = comparison(Run('a', tmp_path, tables={'.': a}), Run('b', tmp_path / 'b', tables={'.': b}))
    assert one.summary['m']['b']['mPC'].mean == 30.0
    assert 'fog 2' in one.notes[0]


def test_nothing_in_common(tmp_path):
    a, b = table(50.0, {'fog': {1: 40.0}}), table(40.0, {'snow': {1: 30.0}})
    one = comparison(Run('a', tmp_path, tables={'.': a}), Run('b', tmp_path / 'b', tables={'.': b}))
    assert one.summary['m']['b']['P'].mean == 40.0
    assert one.summary['m']['b']['mPC'] is None


def test_missing_and_unfinished_tables_are_said(tmp_path):
    half = table(50.0, FOG, wanted=[('fog', 1), ('fog', 2), ('fog', 3)])
    runs = [
        Run('a', tmp_path / 'a', tables={'voc': table(50.0, FOG), 'coco': half}),
        Run('b', tmp_path / 'b', tables={'voc': table(50.0, FOG)}),
        Run('c', tmp_path / 'c', tables={'voc': table(9.0, FOG, task='segmentation')}),
    ]
    voc, coco = compare_tables('detection', by_task(runs)['detection'])
    assert (voc.folder, voc.missing, voc.names) == ('voc', [], ['a', 'b'])
    assert coco.missing == ['b has no table of robustness in its folder coco']
    assert any('a: unfinished: 1 of 3' in note for note in coco.notes)


def test_errors_of_classifiers(tmp_path):
    def of(value, reference=None, severities=(1, 2)):
        corrupted = {'fog': dict.fromkeys(severities, value)}
        more = dict(task='classification', metric='accuracy/top1', reference=reference)
        return table(90.0, corrupted, **more)

    def key(first, second):
        runs = [Run(n, tmp_path / n, tables={'.': t}) for n, t in (('a', first), ('b', second))]
        one = comparison(*runs, task='classification')
        return one.summary['accuracy/top1'], one.notes

    reference, other = of(20.0), of(60.0)
    rows, _ = key(of(60.0, reference), of(40.0, reference))
    assert rows['a']['mCE'].mean == pytest.approx(0.5)
    assert rows['b']['mCE'].mean == pytest.approx(0.75)
    rows, _ = key(of(60.0), of(40.0, severities=(1,)))
    assert (rows['a']['mean error'].mean, rows['b']['mean error'].mean) == (40.0, 60.0)
    for beside in (of(40.0, dict(other, config='another')), of(40.0, reference, severities=(1,))):
        rows, notes = key(of(60.0, reference), beside)
        assert 'mCE' not in rows['a']
        assert any('mCE is left out' in note for note in notes)


# Attacks.


def test_only_the_same_attacks_are_compared(tmp_path):
    for name, value in (('a', 10.0), ('b', 20.0), ('c', 40.0)):
        attack(tmp_path / name, {0: 50.0, 1: value})
    attack(tmp_path / 'a', {0: 50.0, 1: 5.0}, where='strong', steps=20)
    runs = read_runs([f'x={tmp_path}/a', f'y={tmp_path}/b', f'y={tmp_path}/c'])
    weak, strong = compare_attacks('detection', by_task(runs)['detection'])
    assert weak.settings['steps'] == 3
    assert weak.curves['m']['x'][1.0].mean == 10.0
    assert weak.curves['m']['y'][1.0].mean == 30.0
    assert weak.curves['m']['y'][1.0].std == pytest.approx(statistics.stdev([20.0, 40.0]))
    assert weak.missing == []
    assert strong.curves['m']['x'][1.0].mean == 5.0
    assert 'y' not in strong.curves['m']
    assert strong.missing == ['y seed 1', 'y seed 2']


def test_attacks_in_other_units_are_not_compared(tmp_path):
    """A grey level is 1/255 of the range."""
    attack(tmp_path / 'a', {0: 50.0, 1: 10.0})
    attack(tmp_path / 'b', {0: 50.0, 1: 20.0}, image_range=[0, 4095])
    runs = read_runs([f'x={tmp_path}/a', f'y={tmp_path}/b'])
    one, other = compare_attacks('detection', by_task(runs)['detection'])
    assert (one.missing, other.missing) == (['y'], ['x'])
    assert 'images of 0 to 4095' in describe_attack(other)
    assert 'images of' not in describe_attack(one)


def test_attacks_on_other_test_sets_are_said(tmp_path):
    for name, images in (('a', 20), ('b', 87)):
        attack(tmp_path / name, {0: 50.0}, made_with=dict(images=images))
    runs = read_runs([f'x={tmp_path}/a', f'y={tmp_path}/b'])
    (one,) = compare_attacks('detection', by_task(runs)['detection'])
    assert one.notes == [
        'different numbers of test images (20, 87): differences between these mean little'
    ]


def test_strengths_that_a_seed_lacks_are_left_out(tmp_path):
    attack(tmp_path / 'a', {0: 50.0, 1: 10.0, 2: 1.0})
    attack(tmp_path / 'b', {0: 40.0, 1: 20.0})
    runs = read_runs([f'x={tmp_path}/a', f'x={tmp_path}/b'])
    (one,) = compare_attacks('detection', by_task(runs)['detection'])
    assert list(one.curves['m']['x']) == [0.0, 1.0]
    assert 'left out: 2' in one.notes[0]


def test_two_test_sets_are_told_apart(tmp_path):
    attack(tmp_path / 'a', {0: 50.0}, where='voc')
    attack(tmp_path / 'a', {0: 30.0}, where='coco')
    attack(tmp_path / 'b', {0: 20.0}, where='coco')
    runs = read_runs([f'x={tmp_path}/a', f'y={tmp_path}/b'])
    found = {c.folder: c for c in compare_attacks('detection', by_task(runs)['detection'])}
    assert found['coco'].curves['m']['x'][0.0].mean == 30.0
    assert found['coco'].curves['m']['y'][0.0].mean == 20.0
    assert list(found['voc'].curves['m']) == ['x']
