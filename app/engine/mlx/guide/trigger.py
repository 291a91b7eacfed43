"""Where a text that begins a grammar has been generated, by the bytes of the tokens. Pure."""

from __future__ import annotations

from collections.abc import Callable


class TriggerWatch:
    """Looks for ``trigger`` in what a row says; ``token_bytes`` spells its tokens."""

    def __init__(self, trigger: str, token_bytes: Callable[[int], bytes]) -> None:
        self._trigger = trigger.encode()
        self._token_bytes = token_bytes
        self._tail = b""

    def fired(self, token: int) -> bytes | None:
        """What the token says after the trigger, if the trigger ends in it; None if it does not."""
        text = self._tail + self._token_bytes(token)
        before, found, rest = text.partition(self._trigger)
        if found:
            self._tail = b""
            return rest
        self._tail = before[max(0, len(before) - len(self._trigger) + 1) :]
        return None
