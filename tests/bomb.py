# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""An augmentation that ends its process between two views: ``BOMB=<signal>:<turn>``."""

import os
import signal

from mmfeataug.methods.afan import AFAN
from mmfeataug.registry import AUGMENTATIONS


@AUGMENTATIONS.register_module()
class Bomb(AFAN):
    turn = 0

    def views(self, features, gradients, tail):
        self.turn += 1
        name, _, turn = os.environ.get('BOMB', '').partition(':')
        for view in super().views(features, gradients, tail):
            yield view
            if name and self.turn == int(turn):
                os.kill(os.getpid(), getattr(signal, name))
