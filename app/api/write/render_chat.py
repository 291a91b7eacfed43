"""Events as chat completions: chunks, and the whole answer. Pure, but for the meter that is read."""

from typing import assert_never

from msgspec import UNSET, Struct

from app.api.read import calling
from app.api.write.logprobs import chat_logprobs
from app.api.write.transcript import Choice, Counts, Head, Transcript
from app.generation.events import (
    Cached,
    Completed,
    Delta,
    Event,
    Finished,
    FinishReason,
    Started,
    TokenLogprob,
    ToolCallArguments,
    ToolCallStarted,
)
from app.generation.meter import Meter
from app.schemas import chat
from app.schemas.chat import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatRequest,
    ChunkChoice,
)
from app.schemas.messages import FunctionCall, ToolCall
from app.schemas.tools import FunctionDelta, ToolCallDelta
from app.schemas.usage import Usage


def message(choice: Choice, *, legacy: bool) -> chat.AnswerMessage:
    """A whole message; its content is null where there are calls and no text."""
    calls = [ToolCall(id=call.id, function=FunctionCall(call.name, call.arguments)) for call in choice.calls]
    return chat.AnswerMessage(
        content=None if calls and not choice.text else choice.text,
        reasoning_content=choice.reasoning or UNSET,
        tool_calls=UNSET if legacy or not calls else calls,
        function_call=calls[0].function if legacy and calls else UNSET,
    )


def call_delta(event: ToolCallStarted | ToolCallArguments, *, legacy: bool) -> chat.ChatDelta:
    """More of a call."""
    if isinstance(event, ToolCallArguments):
        function = FunctionDelta(arguments=event.text)
        call = ToolCallDelta(event.call, function)
    else:
        function = FunctionDelta(arguments="", name=event.name)
        call = ToolCallDelta(event.call, function, id=event.id, type="function")
    return chat.ChatDelta(function_call=function) if legacy else chat.ChatDelta(tool_calls=[call])


def told_reason(reason: FinishReason, *, legacy: bool) -> chat.FinishReason:
    """Why it ended."""
    return "function_call" if legacy and reason == "tool_calls" else reason


class ChatRenderer:
    """One request's answer."""

    def __init__(self, request: ChatRequest, meter: Meter, head: Head) -> None:
        self._head = head
        self._id = f"chatcmpl-{head.id}"
        self._logprobs = request.logprobs is True
        self._legacy = calling.legacy(request)
        self._counts = Counts(request.stream_options, meter)
        self._begun: set[int] = set()

    def chunks(self, event: Event) -> list[Struct]:
        """The chunks that ``event`` makes; a choice's first one carries the role."""
        match event:
            case Started():
                self._counts.began(event)
                return []
            case Cached():
                return []
            case Delta(index=index, text=text, logprobs=logprobs, reasoning=thought):
                delta = ChatDelta(content=text if text or not thought else None, reasoning_content=thought or None)
                return [*self._role(index), self._chunk(ChunkChoice(index, delta, self._tokens(logprobs)))]
            case ToolCallStarted(index=index) | ToolCallArguments(index=index):
                return [*self._role(index), self._chunk(ChunkChoice(index, call_delta(event, legacy=self._legacy)))]
            case Finished(index=index, reason=reason):
                end = ChunkChoice(index, ChatDelta(), finish_reason=told_reason(reason, legacy=self._legacy))
                return [*self._role(index), self._chunk(end)]
            case Completed(usage=usage):
                return [self._body([], usage)] if self._counts.asked else []
            case _:
                assert_never(event)

    def whole(self, transcript: Transcript) -> Struct:
        """The answer in one piece."""
        return ChatCompletion(
            id=self._id,
            created=self._head.created,
            model=self._head.model,
            system_fingerprint=self._head.fingerprint,
            choices=[
                ChatChoice(
                    index,
                    message(choice, legacy=self._legacy),
                    told_reason(reason, legacy=self._legacy),
                    self._tokens(tuple(choice.logprobs)),
                )
                for index, choice, reason in transcript.choices
            ],
            usage=transcript.usage,
        )

    def _role(self, index: int) -> list[ChatChunk]:
        if index in self._begun:
            return []
        self._begun.add(index)
        return [self._chunk(ChunkChoice(index, ChatDelta(role="assistant", content="")))]

    def _chunk(self, choice: ChunkChoice) -> ChatChunk:
        return self._body([choice], None)

    def _body(self, choices: list[ChunkChoice], usage: Usage | None) -> ChatChunk:
        return ChatChunk(
            id=self._id,
            created=self._head.created,
            model=self._head.model,
            system_fingerprint=self._head.fingerprint,
            choices=choices,
            usage=self._counts.now() if usage is None else usage,
        )

    def _tokens(self, logprobs: tuple[TokenLogprob, ...]) -> ChatLogprobs | None:
        return chat_logprobs(logprobs) if self._logprobs else None
