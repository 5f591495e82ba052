# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
import mmfeataug.registry  # noqa: F401  # first: it declares what mmdet and mmpretrain import
