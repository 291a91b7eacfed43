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
        self.stopped = False
        """Whether a stop string has appeared; nothing comes out after it."""

    def push(self, text: str) -> str:
        """The text that is now certain to be output."""
        if self.stopped:
            return ""
        if not self._stops:
            return text
        text = self._held + text
        cut, found = self._search(text)
        self.stopped = found
        self._held = "" if found else text[cut:]
        return text[:cut]

    def finish(self) -> str:
        """The text held back, at the end of the stream; a stop string inside it still stops."""
        held, self._held = self._held, ""
        ends = [held.index(stop) for stop in self._stops if stop in held]
        self.stopped = self.stopped or bool(ends)
        return held[: min(ends)] if ends else held

    def _search(self, text: str) -> tuple[int, bool]:
        """Where output ends for now, and whether a stop string begins there."""
        for start in range(len(text)):
            if text[start] not in self._firsts:
                continue
            rest = len(text) - start
            if any(text.startswith(stop, start) for stop in self._stops):
                return start, True
            if any(rest < len(stop) and stop.startswith(text[start:]) for stop in self._stops):
                return start, False
        return len(text), False
