"""What a job uses: tokens counted, times taken."""

from time import perf_counter

from app.engine.base import Found, Prefilled, Sequence
from app.generation.choice import Choice
from app.generation.events import Cached, Timings
from app.generation.meter import Meter
from app.schemas.usage import CompletionTokensDetails, PromptTokensDetails, Usage


class Tally:
    """Each prompt counts once, however many choices continue it; every generated token counts, ranked out or not."""

    def __init__(self, sequences: tuple[Sequence, ...], meter: Meter) -> None:
        self._meter = meter
        self.prompt_tokens = sum(len(sequence.prompt) for sequence in sequences)
        self._prompts = self._all = len(sequences)
        self._choices = sum(sequence.rows for sequence in sequences if sequence.max_tokens)
        self._cached: dict[int, int] = {}
        self._reported = False
        self._queued = 0.0
        self._generated = 0
        self._thought = 0
        self._began = self._computed = perf_counter()

    def found(self, event: Found | Prefilled) -> Cached | None:
        """Note how much of a prompt was cached, and perhaps that it is computed now; said once, for all prompts."""
        self._cached[event.sequence] = event.cached_tokens
        if isinstance(event, Prefilled):
            if self._prompts == self._all:
                self._queued = event.waited
                self._meter.waited(event.waited)
            self._prompts -= 1
            self._computed = perf_counter()
        if self._reported or len(self._cached) < self._all:
            return None
        self._reported = True
        return Cached(sum(self._cached.values()))

    def made(self, tokens: int) -> None:
        """Note tokens that have come, of whichever choice."""
        self._meter.completion_tokens += tokens

    def finished(self, choice: Choice) -> None:
        """Note what a choice generated."""
        self._choices -= 1
        self._generated += choice.tokens
        self._thought += choice.reasoning_tokens

    @property
    def complete(self) -> bool:
        """Whether every prompt is computed and every choice has ended."""
        return not self._prompts and not self._choices

    def usage(self) -> Usage:
        """The counts so far."""
        return Usage(
            prompt_tokens=self.prompt_tokens,
            completion_tokens=self._generated,
            total_tokens=self.prompt_tokens + self._generated,
            prompt_tokens_details=PromptTokensDetails(cached_tokens=sum(self._cached.values())),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=self._thought),
        )

    def timings(self, waited: float) -> Timings:
        """All times, ``waited`` seconds having been waited when the prompts were begun.

        The waits since then are the queue's, and none of the time for what came after the prompts.
        """
        prefill, decode = self._computed - self._began - self._queued, perf_counter() - self._computed
        meter = self._meter
        since = meter.queue - waited - self._queued
        return Timings(meter.queue, meter.load, max(0.0, prefill), max(0.0, decode - since))
