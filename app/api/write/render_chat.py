"""Events as chat completions: chunks, and the whole answer. Pure."""

from typing import assert_never

from msgspec import UNSET, Struct

from app.api.read import calling
from app.api.write.logprobs import chat_logprobs
from app.api.write.render_calls import call_delta, message, told_reason
from app.api.write.transcript import Head, Transcript
from app.generation.events import (
    Completed,
    Delta,
    Event,
    Finished,
    Started,
    TokenLogprob,
    ToolCallArguments,
    ToolCallStarted,
)
from app.schemas.chat import (
    ChatChoice,
    ChatChunk,
    ChatCompletion,
    ChatDelta,
    ChatLogprobs,
    ChatRequest,
    ChunkChoice,
)
from app.schemas.usage import Usage


class ChatRenderer:
    """One request's answer."""

    def __init__(self, request: ChatRequest, head: Head) -> None:
        self._head = head
        self._id = f"chatcmpl-{head.id}"
        self._logprobs = request.logprobs is True
        self._legacy = calling.legacy(request)
        options = request.stream_options
        self._usage_asked = options is not None and options.include_usage is True
        self._begun: set[int] = set()

    def chunks(self, event: Event) -> list[Struct]:
        """The chunks that ``event`` makes; a choice's first one carries the role."""
        match event:
            case Started():
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
                return [self._body([], usage)] if self._usage_asked else []
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
            usage=usage if usage is not None or self._usage_asked else UNSET,
        )

    def _tokens(self, logprobs: tuple[TokenLogprob, ...]) -> ChatLogprobs | None:
        return chat_logprobs(logprobs) if self._logprobs else None
