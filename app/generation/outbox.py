"""What one choice has to tell: events put together, log probabilities beside their text."""

from collections import deque

from app.generation.events import Delta, TokenLogprob
from app.generation.tools.format import CallEvent

ChoiceEvent = Delta | CallEvent


class Outbox:
    """Collects events of choice ``index``.

    A token's log probability is known with the token, its text only later, and perhaps it is no content at all. So
    scores wait with their place among all characters generated until content is placed there, and then with their
    place in the content until that is told.
    """

    def __init__(self, index: int) -> None:
        self._index = index
        self._events: list[ChoiceEvent] = []
        self._thought: list[str] = []
        self._text: list[str] = []
        self._made: deque[tuple[int, TokenLogprob]] = deque()
        self._placed: deque[tuple[int, TokenLogprob]] = deque()
        self._content = self._sent = 0
        self._end = 0

    def score(self, at: int, logprob: TokenLogprob) -> None:
        """A token's log probability; its text begins after ``at`` generated characters."""
        self._made.append((at, logprob))

    def place(self, at: int, length: int) -> None:
        """The generated characters from ``at`` on are the next ``length`` of the content; those before are none."""
        self._end = at + length
        while self._made and self._made[0][0] < self._end:
            start, logprob = self._made.popleft()
            if start >= at:
                self._placed.append((self._content + start - at, logprob))
        self._content += length

    def think(self, text: str) -> None:
        """More of a thought."""
        if text:
            if self._text:
                self._flush(())
            self._thought.append(text)

    def say(self, text: str) -> None:
        """More of the content that is told."""
        if text:
            self._text.append(text)
            self._sent += len(text)

    def call(self, event: CallEvent) -> None:
        """More of a call."""
        self._flush(self._ready(whole=False))
        self._events.append(event)

    def collect(self, *, whole: bool) -> list[ChoiceEvent]:
        """All that is to be told now; ``whole`` says that the choice has ended and all of its content is told."""
        self._flush(self._ready(whole=whole))
        events, self._events = self._events, []
        return events

    def _ready(self, *, whole: bool) -> tuple[TokenLogprob, ...]:
        if whole:
            self._placed.extend(entry for entry in self._made if entry[0] >= self._end)
            self._made.clear()
        ready = []
        while self._placed and (self._placed[0][0] < self._sent or whole):
            ready.append(self._placed.popleft()[1])
        return tuple(ready)

    def _flush(self, logprobs: tuple[TokenLogprob, ...]) -> None:
        text, thought = "".join(self._text), "".join(self._thought)
        if text or thought or logprobs:
            self._events.append(Delta(self._index, text, logprobs, thought))
        self._text.clear()
        self._thought.clear()
