"""Token counts and times of a job, taken from the tokens themselves."""

from time import perf_counter

from app.engine.base import Prefilled, Sequence
from app.generation.choice import Choice
from app.generation.events import Timings
from app.schemas.usage import CompletionTokensDetails, PromptTokensDetails, Usage


class Tally:
    """Each prompt counts once, however many choices continue it; every generated token counts, ranked out or not."""

    def __init__(self, sequences: tuple[Sequence, ...]) -> None:
        self.prompt_tokens = sum(len(sequence.prompt) for sequence in sequences)
        self._prompts = len(sequences)
        self._choices = sum(sequence.rows for sequence in sequences if sequence.max_tokens)
        self._cached = 0
        self._generated = 0
        self._thought = 0
        self._began = self._computed = perf_counter()

    def prefilled(self, event: Prefilled) -> None:
        """Note how much of a prompt was cached, and that it is computed now."""
        self._prompts -= 1
        self._cached += event.cached_tokens
        self._computed = perf_counter()

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
            prompt_tokens_details=PromptTokensDetails(cached_tokens=self._cached),
            completion_tokens_details=CompletionTokensDetails(reasoning_tokens=self._thought),
        )

    def timings(self, before: Timings) -> Timings:
        """``before`` with the time of the prompts, and of all that came after the last of them."""
        prefill, decode = self._computed - self._began, perf_counter() - self._computed
        return Timings(before.queue, before.load, prefill, decode)
