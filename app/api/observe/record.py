"""What is measured of one request: who asked which model, what it took, how it ended. Never what was said."""

from bisect import bisect_left
from time import perf_counter, time_ns
from typing import Any, Literal

from app.generation.events import Completed, Delta, Event, Started, Timings, ToolCallArguments, ToolCallStarted
from app.observability import request_id

Outcome = Literal["answered", "refused", "failed", "left"]

GAPS = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5)
"""Upper bounds in seconds of the buckets that gaps between pieces of text are counted in; one more is above them."""


class Record:
    """Written by whoever learns something, in the request's own task. Times are seconds since it came."""

    def __init__(self, scope: Any) -> None:
        self.id = request_id(scope)
        self.method: str = scope["method"]
        self.path: str = scope["path"]
        self.headers: list[tuple[bytes, bytes]] = scope["headers"]
        self.began = perf_counter()
        self.began_ns = time_ns()
        self.key: str | None = None
        self.model: str | None = None
        self.status = 0
        self.complete = False
        self.error: str | None = None
        self.seconds = 0.0
        self.first_token: float | None = None
        self.prompt_tokens = 0
        self.cached_tokens = 0
        self.completion_tokens = 0
        self.timings: Timings | None = None
        self.gaps = [0] * (len(GAPS) + 1)
        self.gap_seconds = 0.0
        self._last = 0.0

    def now(self) -> float:
        """Seconds since the request came."""
        return perf_counter() - self.began

    def see(self, event: Event) -> None:
        """What the running job tells."""
        match event:
            case Delta() | ToolCallStarted() | ToolCallArguments():
                self._piece()
            case Started():
                self.model, self.prompt_tokens, self.timings = event.model, event.prompt_tokens, event.timings
            case Completed():
                usage, self.timings = event.usage, event.timings
                self.completion_tokens = usage.completion_tokens
                self.cached_tokens = usage.prompt_tokens_details.cached_tokens
            case _:
                pass

    @property
    def outcome(self) -> Outcome:
        """How it ended, once it has."""
        if self.status >= 500:
            return "failed"
        if not self.complete or self.status == 499:
            return "left"
        if self.status >= 400:
            return "refused"
        return "answered" if self.error is None else "failed"

    @property
    def tokens_per_second(self) -> float | None:
        """Generated tokens by the time from the first of them to the last."""
        decode = 0.0 if self.timings is None else self.timings.decode
        return self.completion_tokens / decode if decode > 0 and self.completion_tokens else None

    def _piece(self) -> None:
        now = self.now()
        if self.first_token is None:
            self.first_token = now
        else:
            gap = now - self._last
            self.gap_seconds += gap
            self.gaps[bisect_left(GAPS, gap)] += 1
        self._last = now


def record_of(scope: Any) -> Record:
    """The record of a running request; one that nobody reads outside of the service."""
    record = scope.get("state", {}).get("record")
    return record if isinstance(record, Record) else Record(scope)
