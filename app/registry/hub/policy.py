"""How patient the hub's client is."""

import random

from msgspec import Struct

from app.errors import SwitchyardError, Unavailable


class Policy(Struct, frozen=True, kw_only=True):
    """Time limits in seconds, sizes in bytes."""

    answer_timeout: float = 10.0
    """For the hub to say what a repo holds, from the first byte sent to the last received."""
    answer_attempts: int = 3
    """Times that question is asked when the answer is 429 or 5xx."""
    stall_timeout: float = 30.0
    """Without a single byte of a file before its transfer is begun again."""
    attempts: int = 6
    """In a row without any progress before a file is given up; each byte gained starts the count anew."""
    backoff: float = 0.5
    """The first wait before another attempt; it doubles from one to the next."""
    backoff_limit: float = 20.0
    """The longest wait, and the longest ``Retry-After`` that is waited for instead of being passed on."""
    away: float = 10.0
    """What callers are told to wait when the hub fails and has not said for how long."""
    parallel_files: int = 4
    max_downloads: int = 8
    disk_reserve: int = 256 * 1024 * 1024
    """Free disk that a download leaves to others."""

    def advise(self, error: SwitchyardError) -> SwitchyardError:
        """Complete a failure that is passed on to callers."""
        if isinstance(error, Unavailable) and error.retry_after is None:
            error.retry_after = self.away
        return error

    def delay(self, failures: int, retry_after: float | None) -> float:
        """How long to wait after that many failures in a row (at least one), with jitter of a quarter."""
        growing = min(self.backoff * 2.0 ** (failures - 1), self.backoff_limit)
        jittered = growing * random.uniform(0.75, 1.0)  # noqa: S311 - spreads retries, guards nothing
        return jittered if retry_after is None else max(jittered, retry_after)
