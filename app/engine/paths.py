"""Where the service and its models' processes keep what they have made."""

import os
from pathlib import Path


def cache_home() -> Path:
    """``switchyard`` in the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "switchyard"
