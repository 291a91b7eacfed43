"""One choice on its way from tokens to text, thoughts and tool calls."""

from collections.abc import Sequence

from app.engine.base import PromptScore, Token
from app.generation.events import Alternative, FinishReason, TokenLogprob
from app.generation.outbox import ChoiceEvent, Outbox
from app.generation.reasoning import ReasoningMachine
from app.generation.tools.harmony import Channels
from app.generation.tools.machine import Content, Piece, Thought, ToolMachine


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


class Choice:
    """Turns tokens into events: thoughts and calls taken out, cut at stop strings.

    Log probabilities go with the text that they belong to; those of thoughts, calls and marks are left out, and that
    of the token that ends it unless ``tells_end``. ``index`` is the choice's number in the answer. Pure but for its own
    state.
    """

    def __init__(
        self,
        index: int,
        stops: tuple[str, ...],
        *,
        reasoning: ReasoningMachine | None = None,
        tools: ToolMachine | Channels | None = None,
        tells_end: bool = False,
    ) -> None:
        self.index = index
        self.finished: FinishReason | None = None
        self.tokens = 0
        """Tokens generated, a stop token included."""
        self.reasoning_tokens = 0
        """Those of them that were thoughts, marks included."""
        self.logprob = 0.0
        """Sum of the log probabilities reported."""
        self._reasoning = reasoning
        self._tools = tools
        self._tells_end = tells_end
        self._stop = StopMachine(stops)
        self._out = Outbox(index)
        self._made = self._answered = 0

    @property
    def stop(self) -> str | None:
        """The stop string that ended it."""
        return self._stop.found

    @property
    def ended(self) -> bool:
        """Whether nothing more comes of it."""
        return self.finished is not None

    def push(self, tokens: list[Token]) -> list[ChoiceEvent]:
        """Take the tokens that came together; what is now certain."""
        for token in tokens:
            if self.finished is not None:
                break
            self.tokens += 1
            self.logprob += 0.0 if token.logprob is None else token.logprob
            if token.finish != "stop" or self._tells_end:
                self._score(token)
            self._take(token)
            if token.finish is not None and not self._stop.stopped:
                self._finish(token.finish)
            self.finished = self._reason(token)
        return self._out.collect(whole=self.finished is not None and not self._stop.stopped)

    def _take(self, token: Token) -> None:
        thought = self._thinking
        self._route(token.text)
        if token.finish == "stop":
            return
        if thought:
            self.reasoning_tokens += 1
        elif self._thinking and not self.reasoning_tokens:
            self.reasoning_tokens = self.tokens  # all that has come makes the opening mark

    @property
    def _thinking(self) -> bool:
        machines = (self._reasoning, self._tools)
        return any(machine is not None and machine.thinking for machine in machines)

    def _score(self, token: Token) -> None:
        if token.logprob is not None:
            self._out.score(self._made, describe(token))

    def _route(self, text: str) -> None:
        self._made += len(text)
        if self._reasoning is None:
            self._answer(text)
            return
        thought, answer = self._reasoning.push(text)
        self._out.think(thought)
        self._answer(answer)

    def _finish(self, reason: FinishReason) -> None:
        if self._reasoning is not None:
            thought, answer = self._reasoning.finish()
            self._out.think(thought)
            self._answer(answer)
        if self._tools is not None:
            self._pieces(self._tools.finish(reason))
        if not self._stop.stopped:
            self._out.say(self._stop.finish())

    def _answer(self, text: str) -> None:
        if not text or self._stop.stopped:
            return
        if self._tools is not None:
            self._pieces(self._tools.push(text))
        else:
            self._content(text, self._answered)
            self._answered += len(text)

    def _pieces(self, pieces: list[Piece]) -> None:
        for piece in pieces:
            if self._stop.stopped:
                return
            if isinstance(piece, Content):
                self._content(piece.text, piece.at)
            elif isinstance(piece, Thought):
                self._out.think(piece.text)
            else:
                self._out.call(piece)

    def _content(self, text: str, at: int) -> None:
        """Text that begins ``at`` characters into the answer."""
        before = 0 if self._reasoning is None else self._reasoning.answer_at
        self._out.place(before + at, len(text))
        self._out.say(self._stop.push(text))

    def _reason(self, token: Token) -> FinishReason | None:
        if self._stop.stopped:
            return "stop"
        if token.finish == "stop" and self._tools is not None and self._tools.called:
            return "tool_calls"
        return token.finish


def describe(token: Token | PromptScore) -> TokenLogprob:
    """A token's log probability with the token and its alternatives spelt out."""
    top = tuple(Alternative(it.raw.decode(errors="replace"), it.raw, it.logprob) for it in token.top)
    return TokenLogprob(token.raw.decode(errors="replace"), token.raw, token.logprob, top, token.shown)
