# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Draw a demo data set in the layouts of Pascal VOC, COCO, Cityscapes and ImageNet."""

import argparse

from mmfeataug.datasets import make_demo_data
from mmfeataug.datasets.demo import LAYOUTS


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('out_dir', help='new or empty folder')
    parser.add_argument('--train', type=int, default=64, help='number of training scenes')
    parser.add_argument('--val', type=int, default=24, help='number of validation scenes')
    parser.add_argument(
        '--size',
        type=int,
        nargs=2,
        default=(224, 160),
        metavar=('W', 'H'),
        help='image width and height in pixels',
    )
    parser.add_argument('--seed', type=int, default=0, help='another seed, other scenes')
    parser.add_argument(
        '--layouts', nargs='+', default=tuple(LAYOUTS), choices=tuple(LAYOUTS), help='what to write'
    )
    return parser.parse_args()


def main() -> None:
    options = vars(parse_args())
    for layout, folder in make_demo_data(options.pop('out_dir'), **options).items():
        print(f'{layout}: {folder}')


if __name__ == '__main__':
    main()
