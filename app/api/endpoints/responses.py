"""``/v1/responses``: made, kept, looked up, forgotten."""

from typing import Annotated, Any, Literal

import structlog
from litestar import Controller, Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody, QueryParameter

from app.api.documented import failures, responses
from app.api.errors import busy_is_unavailable
from app.api.observe.record import record_of
from app.api.protect.access import owner_of, prefixes_of
from app.api.protect.connection import while_connected
from app.api.read import responses as reader
from app.api.read import translate
from app.api.seal import Seal
from app.api.write.answer import answer
from app.api.write.response_dialect import dialect
from app.errors import InvalidRequest, QueueFull
from app.generation.strategy import GenerationStrategy
from app.registry.registry import ModelRegistry
from app.schemas.responses import InputTokens, ResponseDeleted, ResponseItemList, ResponseObject, ResponseRequest
from app.store.history import Item, inputs
from app.store.responses import ResponseStore

IGNORED = "x-switchyard-ignored"
"""Names what of a request its answer does without."""


class ResponsesController(Controller):
    """Conversations of items, answered and kept."""

    path = "/responses"
    tags = ("Responses",)
    exception_handlers = {QueueFull: busy_is_unavailable}  # noqa: RUF012  Litestar's own way

    @post(status_code=200, responses=responses(ResponseObject), summary="Answer items (Responses API)")
    async def create(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[ResponseRequest],
        *,
        registry: NamedDependency[ModelRegistry],
        strategy: NamedDependency[GenerationStrategy],
        store: NamedDependency[ResponseStore],
        seal: NamedDependency[Seal],
    ) -> Response[Any]:
        """Answer through the model's own chat template; whole, or streamed as named and numbered events."""
        owner = owner_of(request.scope)
        history = await reader.history(data, store, owner)
        reading = reader.read(data, history.items, seal, registry.defaults(data.model))
        headers = _ignored(reading.skipped)
        lease = registry.lease(data.model, keep_alive=translate.keep_alive(data))
        events = strategy.run(lease, reading.job, record_of(request.scope).meter, prefixes_of(request.scope))
        model = registry.canonical(data.model)
        how = dialect(data, reading, model=model, own=history.own, store=store, owner=owner, seal=seal)
        return await answer(request, events, how, stream=data.stream is True, headers=headers)

    @post("/input_tokens", status_code=200, responses=failures(400, 401, 404, 503), summary="Count an input's tokens")
    async def count(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[ResponseRequest],
        *,
        registry: NamedDependency[ModelRegistry],
        strategy: NamedDependency[GenerationStrategy],
        store: NamedDependency[ResponseStore],
        seal: NamedDependency[Seal],
    ) -> InputTokens:
        """How many tokens the model is given for this request; nothing is generated or kept."""
        history = await reader.history(data, store, owner_of(request.scope))
        reading = reader.read(data, history.items, seal, registry.defaults(data.model))
        lease = registry.lease(data.model, keep_alive=translate.keep_alive(data))
        counted = await while_connected(request.receive, strategy.count(lease, reading.job))
        return InputTokens(input_tokens=counted)

    @get("/{response_id:str}", responses=failures(400, 401, 404), summary="A response that is kept")
    async def one(
        self,
        request: Request[Any, Any, Any],
        response_id: FromPath[str],
        store: NamedDependency[ResponseStore],
        stream: FromQuery[bool | None] = None,
    ) -> Response[bytes]:
        """As it was answered."""
        if stream:
            raise InvalidRequest("A response that is kept cannot be streamed again; leave stream out.", param="stream")
        kept = await store.get(owner_of(request.scope), response_id)
        return Response(kept.body, media_type="application/json")

    @delete("/{response_id:str}", status_code=200, responses=failures(400, 401, 404), summary="Forget a response")
    async def forget(
        self, request: Request[Any, Any, Any], response_id: FromPath[str], store: NamedDependency[ResponseStore]
    ) -> ResponseDeleted:
        """It can no longer be asked for or continued. Responses that go on after it keep what they were made from."""
        await store.delete(owner_of(request.scope), response_id)
        return ResponseDeleted(id=response_id)

    @get("/{response_id:str}/input_items", responses=failures(400, 401, 404), summary="The input of a response")
    async def items(
        self,
        request: Request[Any, Any, Any],
        response_id: FromPath[str],
        store: NamedDependency[ResponseStore],
        *,
        after: FromQuery[str | None] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=100)] = 20,
        order: FromQuery[Literal["asc", "desc"]] = "desc",
    ) -> ResponseItemList:
        """The items that the response's own request sent, latest first unless ``order`` says otherwise."""
        items = inputs(await store.get(owner_of(request.scope), response_id))
        return _page(items if order == "asc" else items[::-1], after, limit)


def _page(items: list[Item], after: str | None, limit: int) -> ResponseItemList:
    ids = [str(item["id"]) for item in items]
    if after is not None and after not in ids:
        raise InvalidRequest(f"after names '{after[:128]}', which is none of the items.", param="after")
    begin = 0 if after is None else ids.index(after) + 1
    page = items[begin : begin + limit]
    return ResponseItemList(
        data=page,
        first_id=str(page[0]["id"]) if page else None,
        last_id=str(page[-1]["id"]) if page else None,
        has_more=begin + limit < len(items),
    )


def _ignored(skipped: tuple[str, ...]) -> dict[str, str] | None:
    if not skipped:
        return None
    named = ", ".join(skipped)
    structlog.get_logger("switchyard").info("a request's answer does without some of it", ignored=named)
    return {IGNORED: named.encode("ascii", "replace").decode().translate(str.maketrans("\r\n", "  "))[:1024]}
