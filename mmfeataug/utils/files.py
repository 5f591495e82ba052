# Copyright (c) mmfeataug contributors. Licensed under Apache-2.0.
"""Files that are whole or not there."""

import os
import secrets
from pathlib import Path


def write_at_once(path: Path, content: str | bytes) -> None:
    """Replace a file by a whole one, or leave it as it is if the process is killed.

    Args:
        path: In a folder that is there.
        content: Text is written as UTF-8, its ends of lines as they are.
    """
    # Processes of several machines, which may have one number, write into shared folders.
    draft = path.with_name(f'.{path.name}.{os.getpid()}.{secrets.token_hex(4)}')
    try:
        with draft.open('wb') as file:
            file.write(content.encode() if isinstance(content, str) else content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(draft, path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise
