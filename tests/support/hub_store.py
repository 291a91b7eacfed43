"""What the local hub holds, what it counts, and what is to go wrong with it."""

import hashlib
from collections import Counter
from functools import lru_cache
from threading import Event, Lock

import msgspec

INFO = "info"
LISTING = "listing"
LARGE = (".safetensors", ".model", ".bin", ".gguf")


class Faults(msgspec.Struct, kw_only=True):
    """What goes wrong with the next ``times`` answers (negative: with all)."""

    times: int = -1
    status: int | None = None
    error_code: str | None = None
    error_message: str | None = None
    retry_after: int | None = None
    hang: bool = False
    """Accept and never answer, until the hub is closed."""
    cut_after: int | None = None
    """Close the connection after that many bytes of the body."""
    reset_after: int | None = None
    """The same with a TCP reset."""
    stall_after: int | None = None
    """Go silent after that many bytes of the body."""
    bytes_per_second: int | None = None
    spoil: bool = False
    """Flip the first byte that is sent."""
    promise: int | None = None
    """A size for the repo's description and headers that is not the file's."""
    body: bytes | None = None
    """An answer in place of the right one."""
    ignore_range: bool = False


class StoredFile(msgspec.Struct):
    """One file, as the hub keeps it: large ones by their sha256, small ones by git's blob id."""

    data: bytes
    large: bool

    @property
    def sha256(self) -> str:
        return _digest("sha256", b"", self.data)

    @property
    def blob_id(self) -> str:
        return _digest("sha1", b"blob %d\0" % len(self.data), self.data)

    @property
    def etag(self) -> str:
        return self.sha256 if self.large else self.blob_id


@lru_cache(maxsize=64)
def _digest(kind: str, head: bytes, data: bytes) -> str:
    """Asked for with every answer, of files that may be large; bytes keep their own hash."""
    digest = hashlib.new(kind, head, usedforsecurity=False)
    digest.update(data)
    return digest.hexdigest()


class Store:
    """Repos with one commit each, counters of requests and of bytes sent, and faults; shared by all connections."""

    def __init__(self) -> None:
        self.repos: dict[str, dict[str, StoredFile]] = {}
        self.commits: dict[str, str] = {}
        self.faults: dict[str, Faults] = {}
        self.requests: Counter[tuple[str, str]] = Counter()
        self.sent: Counter[str] = Counter()
        self.tokens: set[str] = set()
        """Where any are set, nothing is given without one of them."""
        self.plain_listing = False
        """Leave sizes and checksums out of listings, as some mirrors do."""
        self.lock = Lock()
        self.closing = Event()

    def take_fault(self, name: str) -> Faults:
        """The fault for this request, used up by it."""
        with self.lock:
            for key in (name, "*"):
                fault = self.faults.get(key)
                if fault is not None and fault.times != 0:
                    fault.times -= 1
                    return fault
        return Faults()
