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
    parallel_ranges: int = 8
    """Connections of one download, for ranges of one file or of several."""
    range_bytes: int = 32 * 1024 * 1024
    """What is asked for at a time in a file of several ranges: four times a request's overhead on a fast line."""
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


class Patience:
    """With one transfer that fails now and then: it is given up when it fails too often in a row without progress."""

    def __init__(self, policy: Policy, done: int) -> None:
        self._policy = policy
        self._failures = 0
        self._furthest = done

    def wait(self, error: Unavailable, done: int) -> float:
        """Seconds to wait before another attempt, ``done`` bytes being there; raises ``error`` to give up."""
        self._failures = 1 if done > self._furthest else self._failures + 1
        self._furthest = max(self._furthest, done)
        wait = self._policy.delay(self._failures, error.retry_after)
        if self._failures >= self._policy.attempts or wait > self._policy.backoff_limit:
            raise self._policy.advise(error) from error.__cause__
        return wait
