# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Contract 6, as far as it goes today: processes take the same turns, and gradients are the
mean."""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_two_processes_agree_on_a_dropped_view(tmp_path):
    """One rank alone meets a bad view; SyncBN-like collectives in the tail must still meet, and
    DDP's gradients must be the mean of what each rank computes alone.
    """
    command = ['-m', 'torch.distributed.run', '--nproc_per_node=2', '--master_port=0']
    result = subprocess.run(
        [sys.executable, *command, '--rdzv_backend=c10d', '--rdzv_endpoint=127.0.0.1:0', __file__],
        cwd=ROOT,
        env={**os.environ, 'OMP_NUM_THREADS': '1', 'PYTHONPATH': str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert result.stdout.count('agreed') == 2


def main():
    import copy

    import torch
    from torch import distributed, nn
    from torch.nn.parallel import DistributedDataParallel

    import mmfeataug
    from mmfeataug.engine import FeatureAugmentation, View

    class Toy(nn.Module):
        """The tail has a collective in its forward pass, as mmdet's losses have."""

        collective = True

        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Linear(4, 4), nn.Linear(4, 2)

        def loss(self, inputs, data_samples=None):
            out = self.head(self.stem(inputs).relu())
            count = torch.tensor(float(len(inputs)))
            if self.collective:
                distributed.all_reduce(count)
            return {'loss': out.square().sum() / len(inputs)}

        def parse_losses(self, losses):
            return sum(v.mean() for k, v in losses.items() if 'loss' in k), losses

        def forward(self, inputs):
            return self.loss(inputs)

    class TwoViews(FeatureAugmentation):
        active = True
        bad_rank = 1

        def views(self, features, gradients, tail):
            bad = features[0] * (float('nan') if distributed.get_rank() == self.bad_rank else 1.1)
            yield View([bad], 0.5)
            yield View([features[0] * 1.2], 0.5)

    class OneView(TwoViews):
        def views(self, features, gradients, tail):
            yield View([features[0] * 1.2], 0.5)

    distributed.init_process_group('gloo')
    rank = distributed.get_rank()
    torch.manual_seed(0)
    model = Toy().train()
    batches = [torch.randn(3, 4, generator=torch.Generator().manual_seed(r)) for r in range(2)]
    wrapped = DistributedDataParallel(model)
    with mmfeataug.attach(model, [TwoViews(at='stem')], strict=True):
        losses = wrapped(batches[rank])
        assert float(losses['twoviews.dropped']) == 1
        model.parse_losses(losses)[0].backward()

    # The same on one process, a batch after the other, with the view that was left.
    alone = copy.deepcopy(model)
    gradients = []
    for batch in batches:
        alone.zero_grad()
        with mmfeataug.attach(alone, [OneView(at='stem')], strict=True):
            alone.parse_losses(alone.loss(batch))[0].backward()
        gradients.append([p.grad.clone() for p in alone.parameters()])
    for parameter, a, b in zip(model.parameters(), *gradients, strict=True):
        torch.testing.assert_close(parameter.grad, (a + b) / 2)
    print('agreed', flush=True)
    distributed.destroy_process_group()


if __name__ == '__main__':
    main()
