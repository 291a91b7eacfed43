"""What launchd does not do for the services that it runs: tell ends that are final from others, and turn logs over."""

import os
import shutil
import sys
import threading
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

from app.cli.exits import Exit
from app.cli.system.unit import LAUNCHED, NEVER_AGAIN

LOG_BYTES = 10_000_000
LOGS = 3
"""Files of that size that are kept beside the one that is written."""
_LOOK = 60.0


def log() -> Path | None:
    """The file that launchd lets this process write to; None where it was not launchd that started it."""
    path = os.environ.get(LAUNCHED)
    return Path(path) if path else None


def final(code: int) -> int:
    """The code to end with: launchd starts again whatever ends with another than 0, also what that does not mend."""
    if log() is None or code not in NEVER_AGAIN:
        return code
    sys.stderr.write(f"switchyard: ended for good (exit code {code}); `switchyard service install` starts it again\n")
    return Exit.DONE


def keep_logs_small() -> None:
    """Turn the log over whenever it has become too large, as long as this process lasts."""
    file = log()
    if file is not None:
        threading.Thread(target=_watch, args=(file,), name="log", daemon=True).start()


def turn_over(file: Path, *, limit: int = LOG_BYTES, keep: int = LOGS) -> None:
    """Copy a log that is too large to ``.1`` (what was that to ``.2``, and so on) and empty it.

    It stays the same file, which launchd opened for appending and every process of the service writes to; a line that
    is written between copying and emptying is lost.
    """
    if not file.exists() or file.stat().st_size <= limit:
        return
    copies = [file.with_name(f"{file.name}.{number}") for number in range(1, keep + 1)]
    for newer, older in reversed(list(pairwise(copies))):
        if newer.exists():
            newer.replace(older)
    shutil.copyfile(file, copies[0])
    os.truncate(file, 0)


def _watch(file: Path) -> None:
    waiting = threading.Event()
    while True:
        with suppress(OSError):  # a full disk: the next look may find room
            turn_over(file)
        waiting.wait(_LOOK)
