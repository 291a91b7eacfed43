"""Events as Anthropic's messages: blocks of thought, text and calls, event by event or whole. Pure."""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Literal, assert_never

import msgspec
from msgspec import Raw, Struct

from app.api.anthropic_errors import anthropic_error
from app.api.read.anthropic import shows_thinking
from app.api.seal import Seal
from app.api.write.answer import Dialect
from app.api.write.transcript import Head, Transcript
from app.generation.events import (
    Cached,
    Completed,
    Delta,
    Event,
    Finished,
    FinishReason,
    Started,
    ToolCallArguments,
    ToolCallStarted,
)
from app.schemas import anthropic_answer as wire
from app.schemas.anthropic import MessagesRequest, ThinkingDisabled
from app.schemas.errors import ErrorBody
from app.schemas.usage import Usage

PING_SECONDS = 10.0
"""Claude Code takes twenty silent seconds for a stall."""
NO_INPUT = Raw(b"{}")


class AnthropicDialect(Dialect):
    """How one request for a message is answered. ``where`` is the request's id, for a failure to name."""

    quiet_seconds = PING_SECONDS
    ending = b""

    def __init__(self, request: MessagesRequest, seal: Seal, where: str) -> None:
        super().__init__(partial(AnthropicRenderer, request, seal))
        self._where = where

    def opening(self) -> list[Struct]:
        """A ping: what of the prompt is cached, and with it the first event, is known when its turn has come."""
        return [wire.Ping()]

    def silence(self) -> list[Struct]:
        """A ping: comments are no sign of life to Anthropic's clients."""
        return [wire.Ping()]

    def failure(self, body: ErrorBody) -> Struct:
        """The event ``error``."""
        return anthropic_error(body, self._where)


class Blocks:
    """An answer's blocks as they begin, grow and end, whatever pieces their text comes in.

    White space alone makes no block of text. ``sign`` makes the signature of a thought; None: thoughts are not shown.
    """

    def __init__(self, sign: Callable[[str], str] | None, *, omitted: bool) -> None:
        self._sign = sign
        self._omitted = omitted
        self._open: Literal["text", "thinking", "tool_use"] | None = None
        self._index = 0
        self._blank = ""
        self._thought: list[str] = []

    def think(self, text: str) -> list[Struct]:
        """More of a thought."""
        if not text or self._sign is None:
            return []
        events = self._begin("thinking", wire.AnswerThinking("", "")) if self._open != "thinking" else []
        self._thought.append(text)
        return events if self._omitted else [*events, self._grow(wire.ThinkingDelta(text))]

    def say(self, text: str) -> list[Struct]:
        """More text."""
        if self._open == "text":
            return [self._grow(wire.TextDelta(text))] if text else []
        self._blank += text
        if not self._blank.strip():
            return []
        text = self._blank
        return [*self._begin("text", wire.AnswerText("")), self._grow(wire.TextDelta(text))]

    def call(self, call_id: str, name: str) -> list[Struct]:
        """A call begins."""
        return self._begin("tool_use", wire.AnswerToolUse(call_id.replace("call_", "toolu_", 1), name, NO_INPUT))

    def argue(self, text: str) -> list[Struct]:
        """More of its arguments."""
        return [self._grow(wire.InputDelta(text))] if text else []

    def end(self) -> list[Struct]:
        """The block that is open ends."""
        if self._open is None:
            return []
        events: list[Struct] = []
        if self._open == "thinking" and self._sign is not None:
            events.append(self._grow(wire.SignatureDelta(self._sign("".join(self._thought)))))
            self._thought.clear()
        events.append(wire.BlockStop(self._index))
        self._index += 1
        self._open = None
        return events

    def _begin(self, kind: Literal["text", "thinking", "tool_use"], block: wire.AnswerBlock) -> list[Struct]:
        events = self.end()
        self._open, self._blank = kind, ""
        return [*events, wire.BlockStart(self._index, block)]

    def _grow(
        self, delta: wire.TextDelta | wire.ThinkingDelta | wire.SignatureDelta | wire.InputDelta
    ) -> wire.BlockDelta:
        return wire.BlockDelta(self._index, delta)


class AnthropicRenderer:
    """One request's answer."""

    def __init__(self, request: MessagesRequest, seal: Seal, head: Head) -> None:
        thinking = request.thinking
        self._head = head
        self._max_tokens = request.max_tokens
        omitted = thinking is not None and not isinstance(thinking, ThinkingDisabled) and thinking.display == "omitted"
        self._blocks = Blocks(seal.sign if shows_thinking(request) else None, omitted=omitted)
        self._prompt = 0
        self._reason: FinishReason = "stop"
        self._stop: str | None = None

    def chunks(self, event: Event) -> list[Struct]:
        """The events that ``event`` makes."""
        match event:
            case Started(prompt_tokens=prompt):
                self._prompt = prompt
                return []
            case Cached(tokens=cached):
                usage = wire.MessageUsage(input_tokens=self._prompt - cached, cache_read_input_tokens=cached)
                return [wire.MessageStart(self._message([], usage))]
            case Completed(usage=usage):
                return [wire.MessageDelta(self._ending(usage), _usage(usage)), wire.MessageStop()]
            case _:
                return self._grown(event)

    def whole(self, transcript: Transcript) -> Struct:
        """The answer in one piece: what its stream would have made."""
        usage, _ = transcript.usage, transcript.choices  # which raise where the answer ended early
        content = _gathered(it for event in transcript.events for it in self.chunks(event))
        ending = self._ending(usage)
        message = self._message(content, _usage(usage))
        return msgspec.structs.replace(message, stop_reason=ending.stop_reason, stop_sequence=ending.stop_sequence)

    def _grown(self, event: Delta | ToolCallStarted | ToolCallArguments | Finished) -> list[Struct]:
        match event:
            case Delta(text=text, reasoning=thought):
                return [*self._blocks.think(thought), *self._blocks.say(text)]
            case ToolCallStarted(id=call_id, name=name):
                return self._blocks.call(call_id, name)
            case ToolCallArguments(text=text):
                return self._blocks.argue(text)
            case Finished(reason=reason, stop=stop):
                self._reason, self._stop = reason, stop
                return self._blocks.end()
            case _:
                assert_never(event)

    def _message(self, content: list[wire.AnswerBlock], usage: wire.MessageUsage) -> wire.AnthropicMessage:
        return wire.AnthropicMessage(id=f"msg_{self._head.id}", model=self._head.model, content=content, usage=usage)

    def _ending(self, usage: Usage) -> wire.Ending:
        match self._reason:
            case "stop":
                return wire.Ending("end_turn" if self._stop is None else "stop_sequence", self._stop)
            case "length":
                full = usage.completion_tokens < self._max_tokens
                return wire.Ending("model_context_window_exceeded" if full else "max_tokens", None)
            case "tool_calls":
                return wire.Ending("tool_use", None)
            case "content_filter":
                return wire.Ending("refusal", None)
            case _:
                assert_never(self._reason)


def _usage(usage: Usage) -> wire.MessageUsage:
    cached = usage.prompt_tokens_details.cached_tokens
    return wire.MessageUsage(
        input_tokens=usage.prompt_tokens - cached,
        cache_read_input_tokens=cached,
        output_tokens=usage.completion_tokens,
        output_tokens_details=wire.OutputTokensDetails(usage.completion_tokens_details.reasoning_tokens),
    )


def _gathered(events: Iterable[Struct]) -> list[wire.AnswerBlock]:
    """The blocks that a stream's events make."""
    made: list[wire.AnswerBlock] = []
    pieces: list[str] = []
    for event in events:
        match event:
            case wire.BlockStart(content_block=block):
                made.append(block)
                pieces = []
            case wire.BlockDelta(delta=wire.SignatureDelta(signature=signature)):
                made[-1] = wire.AnswerThinking("".join(pieces), signature)
            case wire.BlockDelta(delta=wire.TextDelta(text=text)):
                pieces.append(text)
            case wire.BlockDelta(delta=wire.ThinkingDelta(thinking=text)):
                pieces.append(text)
            case wire.BlockDelta(delta=wire.InputDelta(partial_json=text)):
                pieces.append(text)
            case wire.BlockStop():
                made[-1] = _filled(made[-1], "".join(pieces))
    return made


def _filled(block: wire.AnswerBlock, text: str) -> wire.AnswerBlock:
    if isinstance(block, wire.AnswerText):
        return wire.AnswerText(text)
    if isinstance(block, wire.AnswerToolUse):
        return wire.AnswerToolUse(block.id, block.name, _object(text))
    return block


def _object(text: str) -> Raw:
    """A call's arguments; what is no object, since the answer was cut, as text that no tool takes for its own."""
    try:
        msgspec.json.decode(text or "{}", type=dict[str, Raw])
    except msgspec.DecodeError:
        return Raw(msgspec.json.encode({"INVALID_JSON": text}))
    return Raw((text or "{}").encode())
