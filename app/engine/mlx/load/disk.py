"""What must be on disk before a name stands for it."""

import os
from pathlib import Path


def sync(path: Path) -> None:
    """Have the system write ``path``, a file or a directory, to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
