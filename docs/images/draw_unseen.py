# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Corruptions on an image of yours: python docs/images/draw_unseen.py IMAGE OUT [NAME ...]

A row for each corruption (the unseen ones, if none is named), clean and at severities 1, 3 and 5.
"""

import sys

import cv2
import matplotlib

matplotlib.use('agg')
from matplotlib import pyplot as plt

from mmfeataug.datasets import Corrupt
from mmfeataug.evaluation import select_corruptions

SEVERITIES = (0, 1, 3, 5)


def main(path: str, out: str, *names: str) -> None:
    image = cv2.imread(path)
    corruptions = select_corruptions(names or ['unseen'])
    height = 1.8 * image.shape[0] / image.shape[1]
    figure, axes = plt.subplots(
        len(corruptions),
        len(SEVERITIES),
        figsize=(1.8 * len(SEVERITIES), height * len(corruptions)),
        gridspec_kw=dict(wspace=0.02, hspace=0.03, left=0.05, right=1, top=0.985, bottom=0),
        squeeze=False,
    )
    for row, name in zip(axes, corruptions, strict=True):
        for panel, severity in zip(row, SEVERITIES, strict=True):
            results = dict(img=image, img_path=path)
            panel.imshow(Corrupt(name, severity)(results)['img'][..., ::-1])
            panel.set(xticks=[], yticks=[])
        row[0].set_ylabel(name, fontsize=7)
    for panel, severity in zip(axes[0], SEVERITIES, strict=True):
        panel.set_title(f'severity {severity}' if severity else 'clean', fontsize=8, pad=2)
    figure.savefig(out, dpi=110)


if __name__ == '__main__':
    main(*sys.argv[1:])
