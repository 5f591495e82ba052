# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""What code of mmengine writes down beside the model."""

from collections.abc import Iterator
from typing import Any

from mmengine.logging import MessageHub


def message_hub() -> Iterator[dict[str, Any]]:
    """Namespaces of the current MessageHub: its scalars, the history of each, and its infos."""
    hub = MessageHub.get_current_instance()
    yield hub.log_scalars
    yield hub.runtime_info
    for history in hub.log_scalars.values():
        yield vars(history)
