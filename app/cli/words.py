"""Numbers and tables for people, without a library: what is piped stays plain."""

from collections.abc import Sequence

STATES = {
    "resident": "in memory",
    "loading": "loading",
    "unloading": "unloading",
    "downloading": "downloading",
    "queued": "waits for memory",
    "on_disk": "on disk",
    "absent": "not on this machine",
}


def size(nbytes: float) -> str:
    """``"1.5 GB"``; a dash for nothing."""
    if not nbytes:
        return "-"
    for unit in ("B", "kB", "MB"):
        if nbytes < 999.5:
            return f"{nbytes:.0f} {unit}"
        nbytes /= 1000
    return f"{nbytes:.1f} GB"


def span(seconds: float | None) -> str:
    """``"2:05"``, ``"1:02:05"``; a dash for None."""
    if seconds is None:
        return "-"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns side by side, each as wide as its widest cell."""
    lines = [head, *rows]
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
