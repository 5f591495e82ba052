# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Write scikit-learn's handwritten digits as an image folder, for the configs ``*_digits.py``."""

import argparse

from mmfeataug.datasets import make_digits


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    parser.add_argument('out_dir', nargs='?', default='data/digits', help='folder to write to')
    return parser.parse_args()


if __name__ == '__main__':
    print(make_digits(parse_args().out_dir))
