"""One choice on its way from tokens to text."""

from collections import deque

from app.engine.base import Detokenizer, Token, Tokenizer, TopLogprob
from app.generation.events import Alternative, Delta, FinishReason, TokenLogprob
from app.generation.stop import StopMachine


class Choice:
    """Turns tokens into deltas: detokenised, cut at stop strings, log probabilities beside the text they belong to.

    ``index`` is the choice's number in the answer. Pure but for its own state.
    """

    def __init__(self, index: int, tokenizer: Tokenizer, detokenizer: Detokenizer, stops: tuple[str, ...]) -> None:
        self.index = index
        self.finished: FinishReason | None = None
        self.tokens = 0
        """Tokens generated, a stop token included."""
        self.logprob = 0.0
        """Sum of the log probabilities reported."""
        self._tokenizer = tokenizer
        self._detokenizer = detokenizer
        self._stop = StopMachine(stops)
        self._made = self._sent = 0
        self._pending: deque[tuple[int, TokenLogprob]] = deque()

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.finished is not None

    def push(self, tokens: list[Token]) -> Delta | None:
        """Take the tokens that came together; the text and log probabilities that are now certain, if any."""
        pieces = []
        for token in tokens:
            if self.finished is not None:
                break
            self.tokens += 1
            self.logprob += 0.0 if token.logprob is None else token.logprob
            if token.finish != "stop":
                pieces.append(self._push_text(token))
            if token.finish is not None and not self._stop.stopped:
                pieces.append(self._stop.push(self._detokenizer.finish()) + self._stop.finish())
            self.finished = "stop" if self._stop.stopped else token.finish
        return self._delta("".join(pieces))

    def _push_text(self, token: Token) -> str:
        text = self._detokenizer.push(token.id)
        if token.logprob is not None:
            self._pending.append((self._made, describe(self._tokenizer, token.id, token.logprob, token.top)))
        self._made += len(text)
        return self._stop.push(text)

    def _delta(self, text: str) -> Delta | None:
        self._sent += len(text)
        ready = []
        while self._pending and (self._pending[0][0] < self._sent or self._ends_whole):
            ready.append(self._pending.popleft()[1])
        return Delta(self.index, text, tuple(ready)) if text or ready else None

    @property
    def _ends_whole(self) -> bool:
        """Whether every token belongs to the output: it ended, and not inside a stop string."""
        return self.finished is not None and not self._stop.stopped


def describe(tokenizer: Tokenizer, token_id: int, logprob: float | None, top: tuple[TopLogprob, ...]) -> TokenLogprob:
    """A token's log probability with the token and its alternatives spelt out."""
    spelt = tokenizer.token_bytes(token_id)
    alternatives = tuple(
        Alternative(other.decode(errors="replace"), other, entry.logprob)
        for entry in top
        for other in (tokenizer.token_bytes(entry.id),)
    )
    return TokenLogprob(spelt.decode(errors="replace"), spelt, logprob, alternatives)
