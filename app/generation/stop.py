"""Stop strings: a pure machine that lets text through until one of them appears. Knows no tokens."""

from collections.abc import Sequence


class StopMachine:
    """Gives the same text however it is split into pieces.

    Output ends where the first stop string begins; text that may yet turn out to be the beginning of one is held back.
    """

    def __init__(self, stops: Sequence[str]) -> None:
        self._stops = tuple(stops)
        self._firsts = frozenset(stop[0] for stop in stops)
        self._held = ""
        self.found: str | None = None
        """The stop string that has appeared, the shortest where several begin; nothing comes out after it."""

    @property
    def stopped(self) -> bool:
        """Whether one has appeared."""
        return self.found is not None

    def push(self, text: str) -> str:
        """The text that is now certain to be output."""
        if self.stopped:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        cut, self.found = self._search(text)
        self._held = "" if self.stopped else text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """The text held back, at the end of the stream; a stop string inside it still stops."""
        held, self._held = self._held, ""
        ends = [(held.index(stop), len(stop), stop) for stop in self._stops if stop in held]
        if not ends:
            return held
        cut, _, self.found = min(ends)
        return held[:cut]

    def _search(self, text: str) -> tuple[int, str | None]:
        """Where output ends for now, and the stop string that begins there."""
        for start in range(len(text)):
            if text[start] not in self._firsts:
                continue
            rest = len(text) - start
            if begun := [stop for stop in self._stops if text.startswith(stop, start)]:
                return start, min(begun, key=len)
            if any(rest < len(stop) and stop.startswith(text[start:]) for stop in self._stops):
                return start, None
        return len(text), None
