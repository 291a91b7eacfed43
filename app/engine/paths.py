"""Where the service and its models' processes keep what they have made."""

import os
from pathlib import Path


def cache_home() -> Path:
    """``switchyard`` in the user's cache directory."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "switchyard"


def native_home() -> Path:
    """Where what is compiled for models' processes lies: they may write the cache, and load this unconfined."""
    return cache_home().with_name("switchyard-native")


def prefixes_home() -> Path:
    """Where prefixes are kept on disk if no setting says so."""
    return cache_home() / "prefixes"
