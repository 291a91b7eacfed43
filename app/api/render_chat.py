"""Events as chat completions: chunks, and the whole answer. Pure."""

from typing import assert_never

from msgspec import UNSET, Struct

from app.api.logprobs import chat_logprobs
from app.api.transcript import Head, Transcript
from app.generation.events import Completed, Delta, Event, Finished, Started, TokenLogprob
from app.schemas.chat import (
    AnswerMessage,
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
        options = request.stream_options
        self._usage_asked = options is not None and options.include_usage is True
        self._begun: set[int] = set()

    def chunks(self, event: Event) -> list[Struct]:
        """The chunks that ``event`` makes; a choice's first one carries the role."""
        match event:
            case Started():
                return []
            case Delta(index=index, text=text, logprobs=logprobs):
                delta = ChunkChoice(index, ChatDelta(content=text), self._tokens(logprobs))
                return [*self._role(index), self._chunk(delta)]
            case Finished(index=index, reason=reason):
                return [*self._role(index), self._chunk(ChunkChoice(index, ChatDelta(), finish_reason=reason))]
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
                ChatChoice(index, AnswerMessage(content=choice.text), reason, self._tokens(tuple(choice.logprobs)))
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
