"""A response request as a chat job: its conversation, continued from what is kept, and what is asked of the answer."""

from msgspec import Struct

from app.api.read import conversation, fields, structure, translate
from app.api.read.response_items import Placed, kind_of, said
from app.api.read.response_tools import Called, toolset
from app.api.seal import Seal
from app.engine.grammar import Grammar
from app.errors import InvalidRequest, ResponseNotFound
from app.generation.job import ChatJob
from app.schemas.messages import Message, SystemMessage
from app.schemas.responses import OpenItem, ResponseRequest, SchemaFormat
from app.schemas.structure import JSONObjectFormat
from app.settings import ModelEntry
from app.store.history import items_of, referred
from app.store.responses import ResponseStore

LOGPROBS = "message.output_text.logprobs"
SEALED = "reasoning.encrypted_content"


class History(Struct, frozen=True):
    """All items of a conversation; ``own`` are those of this request, what they refer to in their place."""

    items: list[Placed]
    own: list[OpenItem]


class Reading(Struct, frozen=True):
    """What a request asks for. ``called`` says how calls are told, ``skipped`` what the answer does without."""

    job: ChatJob
    called: dict[str, Called]
    skipped: tuple[str, ...]


async def history(request: ResponseRequest, store: ResponseStore, owner: bytes) -> History:
    """The items of the conversation so far and of the request.

    Raises :class:`ResponseNotFound` for what is not kept, and :class:`InvalidRequest` where nothing ever is.
    """
    before: list[Placed] = []
    if request.previous_response_id is not None:
        _kept_at_all(store, "previous_response_id")
        try:
            chain = await store.chain(owner, request.previous_response_id)
        except ResponseNotFound as missing:
            raise ResponseNotFound(
                missing.message, param="previous_response_id", code="previous_response_not_found"
            ) from None
        before = [Placed(item, "previous_response_id") for kept in chain for item in items_of(kept)]
    own = [await _resolved(item, f"input.{at}", store, owner) for at, item in enumerate(_sent(request))]
    return History([*before, *(Placed(item, f"input.{at}") for at, item in enumerate(own))], own)


def read(request: ResponseRequest, items: list[Placed], seal: Seal, entry: ModelEntry) -> Reading:
    """The job. Raises :class:`InvalidRequest` for what cannot be honoured."""
    fields.refuse(request, fields.RESPONSE)
    talk, tools = said(items, seal), toolset(request, entry)
    messages: tuple[Message, ...] = talk.messages
    if request.instructions:
        messages = (SystemMessage(request.instructions), *messages)
    if not messages:
        raise InvalidRequest("Send input: a text, or a list of items.", param="input")
    effort = None if request.reasoning is None else request.reasoning.effort
    job = ChatJob(
        decoding=translate.decoding(
            request,
            entry,
            _limit(request, entry),
            logprobs=logprobs(request),
            form=_form(request),
        ),
        messages=messages,
        variables=conversation.variables(request.chat_template_kwargs, effort, enable_thinking=request.enable_thinking),
        tools=tools.use,
        thinking_budget=request.thinking_budget,
        field="input",
        truncated=request.truncation == "auto",
    )
    return Reading(job, tools.called, (*tools.skipped, *talk.skipped))


def logprobs(request: ResponseRequest) -> int | None:
    """How many alternatives each token is told with; None if no log probabilities are."""
    if request.top_logprobs:
        return request.top_logprobs
    return 0 if LOGPROBS in (request.include or ()) else None


def sealed(request: ResponseRequest) -> bool:
    """Whether thoughts are to be handed out signed, for a client that keeps them itself."""
    return SEALED in (request.include or ())


def stored(request: ResponseRequest, store: ResponseStore) -> bool:
    """Whether the response will be kept. Raises :class:`InvalidRequest` if that is wanted and nothing ever is."""
    if request.store:
        _kept_at_all(store, "store")
    return store.keeps and request.store is not False


def _kept_at_all(store: ResponseStore, param: str) -> None:
    if not store.keeps:
        raise InvalidRequest(
            f"{param}: responses are not kept here (the setting response_store is 0). Send the whole conversation in "
            "input, and store: false.",
            param=param,
        )


def _sent(request: ResponseRequest) -> list[OpenItem]:
    if isinstance(request.input, str):
        return [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": request.input}]}]
    return [] if request.input is None else request.input


async def _resolved(item: OpenItem, param: str, store: ResponseStore, owner: bytes) -> OpenItem:
    """The item itself, or the kept one that it refers to."""
    if kind_of(item) != "item_reference" and item.keys() != {"id"}:
        return item
    _kept_at_all(store, param)
    try:
        return await referred(store, owner, str(item.get("id")))
    except ResponseNotFound as missing:
        raise ResponseNotFound(missing.message, param=f"{param}.id", code="item_not_found") from None


def _limit(request: ResponseRequest, entry: ModelEntry) -> int:
    asked = entry.max_tokens if request.max_output_tokens is None else request.max_output_tokens
    if asked == 0:
        raise InvalidRequest(
            "max_output_tokens must be at least 1, or -1 for as many as the context holds.", param="max_output_tokens"
        )
    return translate.UNBOUNDED if asked is None else asked


def _form(request: ResponseRequest) -> Grammar | None:
    asked = None if request.text is None else request.text.format
    if isinstance(asked, JSONObjectFormat):
        return structure.json_object(asked, "text.format")
    if isinstance(asked, SchemaFormat):
        return structure.schema(asked.schema, "text.format.schema", closed=asked.strict is True)
    return None
