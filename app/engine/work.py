"""How busy an engine is."""

from msgspec import Struct


class OnDisk(Struct, frozen=True):
    """What an engine keeps on disk of prompts, in bytes, and what has come of it since the load.

    ``hits`` are prompts that the disk spared tokens, ``spared`` these; ``faults`` what went wrong with files or disk.
    """

    nbytes: int = 0
    hits: int = 0
    spared: int = 0
    writes: int = 0
    written: int = 0
    read: int = 0
    evictions: int = 0
    faults: int = 0


class Work(Struct, frozen=True):
    """What an engine has to do: rows that decode, and prompt tokens that are not computed yet.

    ``proposed`` are the tokens that its draft model has proposed since the load, ``accepted`` those that were kept;
    ``hits`` the prompts of which the prefix cache knew a beginning, ``spared`` the tokens of these.
    """

    rows: int
    waiting_tokens: int
    proposed: int = 0
    accepted: int = 0
    hits: int = 0
    spared: int = 0
    on_disk: OnDisk = OnDisk()
