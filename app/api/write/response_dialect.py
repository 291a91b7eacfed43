"""How one response request is answered: what its response repeats of it, how it is streamed, how it is kept."""

from collections.abc import Awaitable, Callable
from time import time
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from app.api.read import responses as reader
from app.api.read.response_items import kind_of
from app.api.seal import Seal
from app.api.write.answer import Dialect
from app.api.write.render_response import Manner, ResponseRenderer
from app.schemas.errors import ErrorBody
from app.schemas.responses import (
    OpenItem,
    ReasoningSettings,
    ResponseObject,
    ResponseReasoning,
    ResponseRequest,
    ResponseText,
)
from app.schemas.structure import TextFormat
from app.store.ids import Kind, item_id
from app.store.responses import Kept, ResponseStore

HEARTBEAT_SECONDS = 4.0
"""Codex waits for events, by default up to 300 seconds; comments are nothing to it."""
KINDS: dict[str, Kind] = {
    "reasoning": "rs",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
}

Keep = Callable[[ResponseObject], Awaitable[None]]


class ResponseDialect(Dialect):
    """One request's answer. ``keep`` is awaited before the client is told that the response is whole."""

    quiet_seconds = HEARTBEAT_SECONDS
    ending = b""

    def __init__(self, renderer: ResponseRenderer, keep: Keep | None) -> None:
        super().__init__(renderer.begin)
        self._renderer = renderer
        self._keep = keep

    def opening(self) -> list[Struct]:
        """The response is taken."""
        return self._renderer.opening()

    def silence(self) -> list[Struct]:
        """It is still being made."""
        return self._renderer.silence()

    def failure(self, body: ErrorBody) -> Struct:
        """It has failed."""
        return self._renderer.failure(body.error)

    async def settle(self) -> None:
        """Keep it."""
        if self._keep is not None:
            await self._keep(self._renderer.response)


def dialect(
    request: ResponseRequest,
    reading: reader.Reading,
    *,
    model: str,
    own: list[OpenItem],
    store: ResponseStore,
    owner: bytes,
    seal: Seal,
) -> ResponseDialect:
    """What answers ``request``, whose own input items are ``own``, by ``model``. The response gets its id here."""
    response = _taken(request, reading, model, store)
    manner = Manner(
        called=reading.called,
        logprobs=reading.job.decoding.logprobs is not None,
        summed_up=request.reasoning is not None and request.reasoning.summed_up,
        seal=seal.sign if reader.sealed(request) else None,
    )

    async def keep(whole: ResponseObject) -> None:
        items = [_identified(item, whole.id, number) for number, item in enumerate(own)]
        kept = Kept(whole.id, whole.previous_response_id, msgspec.json.encode(items), msgspec.json.encode(whole))
        if not await store.put(owner, kept):
            structlog.get_logger("switchyard").warning(
                "a response is not kept: its conversation is larger than response_store, or was deleted meanwhile",
                response_id=whole.id,
            )

    return ResponseDialect(ResponseRenderer(response, manner), keep if response.store else None)


def _taken(request: ResponseRequest, reading: reader.Reading, model: str, store: ResponseStore) -> ResponseObject:
    decoding = reading.job.decoding
    form = None if request.text is None else request.text.format
    verbosity = None if request.text is None else request.text.verbosity
    asked = ReasoningSettings() if request.reasoning is None else request.reasoning
    return ResponseObject(
        id=store.new_id(),
        created_at=int(time()),
        status="in_progress",
        instructions=request.instructions,
        max_output_tokens=request.max_output_tokens,
        metadata={} if request.metadata is None else request.metadata,
        model=model,
        output=[],
        parallel_tool_calls=request.parallel_tool_calls is not False,
        previous_response_id=request.previous_response_id,
        prompt_cache_key=_text(request.prompt_cache_key),
        reasoning=ResponseReasoning(asked.effort, asked.summary or asked.generate_summary),
        safety_identifier=_text(request.safety_identifier),
        store=reader.stored(request, store),
        temperature=decoding.sampling.temperature,
        text=ResponseText(TextFormat() if form is None else form, "medium" if verbosity is None else verbosity),
        tool_choice="auto" if request.tool_choice is None else request.tool_choice,
        tools=[] if request.tools is None else request.tools,
        top_logprobs=0 if request.top_logprobs is None else request.top_logprobs,
        top_p=decoding.sampling.top_p,
        truncation="disabled" if request.truncation is None else request.truncation,
        user=request.user,
    )


def _identified(item: OpenItem, response: str, number: int) -> OpenItem:
    """An input item with what clients may leave out."""
    kind = kind_of(item)
    whole: OpenItem = {"id": item_id(KINDS.get(kind, "msg"), response, number, of_input=True), "type": kind} | {
        key: value for key, value in item.items() if value is not None
    }
    content = item.get("content")
    if kind == "message" and isinstance(content, str):
        part = "output_text" if item.get("role") == "assistant" else "input_text"
        whole["content"] = [{"type": part, "text": content}]
    return whole


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None
