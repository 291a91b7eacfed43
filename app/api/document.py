"""The OpenAPI document at ``/schema/openapi.json``. No page is served with it: those load scripts from elsewhere.

Litestar writes the paths. The schemas are msgspec's own: Litestar's leave out bounds that are 0 and those of items.
"""

from typing import Any, get_args

import msgspec
from litestar import Request, Response, Router
from litestar.exceptions import NotFoundException
from litestar.openapi import OpenAPIConfig
from litestar.openapi.plugins import JsonRenderPlugin
from litestar.openapi.spec import Components, SecurityScheme

from app import __version__
from app.api.endpoints.actions import ACTIONS
from app.api.examples import examples
from app.api.read import anthropic_fields, embedding_fields, fields
from app.schemas import anthropic, anthropic_answer
from app.schemas.admin import (
    AdminEvent,
    AdminFoundModels,
    AdminMemory,
    AdminModel,
    AdminModels,
    AdminModelSettings,
    Deleted,
    PullProgress,
)
from app.schemas.chat import ChatChunk, ChatCompletion, ChatRequest
from app.schemas.completions import Completion, CompletionRequest
from app.schemas.embeddings import EmbeddingList, EmbeddingRequest, RerankList, RerankRequest
from app.schemas.errors import ErrorBody
from app.schemas.models import Health, ModelCard, ModelList
from app.schemas.response_events import ResponseStreamEvent
from app.schemas.response_items import InputItem, ItemReference
from app.schemas.response_tools import Tool
from app.schemas.responses import InputTokens, ResponseDeleted, ResponseItemList, ResponseObject, ResponseRequest
from app.schemas.tokenize import Detokenized, DetokenizeRequest, Rendered, TemplateRequest, TokenizeRequest, Tokens

ITEMS = (*get_args(InputItem), ItemReference)
"""What the input of a response is made of; its structs are told apart by hand, so they are no union."""
WIRE = (
    AdminEvent,
    AdminMemory,
    AdminFoundModels,
    AdminModel,
    AdminModels,
    AdminModelSettings,
    anthropic_answer.AnthropicError,
    anthropic_answer.AnthropicMessage,
    anthropic_answer.BlockDelta,
    anthropic_answer.BlockStart,
    anthropic_answer.BlockStop,
    ChatChunk,
    ChatCompletion,
    ChatRequest,
    Completion,
    CompletionRequest,
    anthropic.CountTokensRequest,
    Deleted,
    EmbeddingList,
    EmbeddingRequest,
    ErrorBody,
    Health,
    anthropic_answer.MessageDelta,
    anthropic_answer.MessageStart,
    anthropic_answer.MessageStop,
    anthropic.MessagesRequest,
    ModelCard,
    ModelList,
    anthropic_answer.Ping,
    PullProgress,
    RerankList,
    RerankRequest,
    InputTokens,
    *ITEMS,
    ResponseDeleted,
    ResponseItemList,
    ResponseObject,
    ResponseRequest,
    anthropic_answer.TokenCount,
    Detokenized,
    DetokenizeRequest,
    Rendered,
    TemplateRequest,
    TokenizeRequest,
    Tokens,
)
EVENTS: dict[str, Any] = {
    "ResponseStreamEvent": ResponseStreamEvent,
    "MessagesStreamEvent": anthropic_answer.MessagesStreamEvent,
}
REFERENCE = "#/components/schemas/{name}"
STREAMED = {
    "/v1/completions": "Completion",
    "/v1/chat/completions": "ChatChunk",
    "/v1/responses": "ResponseStreamEvent",
    "/v1/messages": "MessagesStreamEvent",
}
"""Answers that may be streamed, and what of."""
TABLES = {
    "CompletionRequest": fields.COMPLETION,
    "ChatRequest": fields.CHAT,
    "ResponseRequest": fields.RESPONSE,
    "CountTokensRequest": anthropic_fields.COUNT_TOKENS,
    "MessagesRequest": anthropic_fields.MESSAGES,
    "EmbeddingRequest": embedding_fields.EMBEDDINGS,
    "RerankRequest": embedding_fields.RERANK,
}


def openapi() -> OpenAPIConfig:
    """Title, security and place of the document."""
    return OpenAPIConfig(
        title="Switchyard",
        version=__version__,
        description="Any MLX language model on Hugging Face, named per request by an ordinary OpenAI client.",
        components=Components(security_schemes={"bearer": SecurityScheme(type="http", scheme="bearer")}),
        security=[{"bearer": []}, {}],
        use_handler_docstrings=True,
        render_plugins=[_Json()],
        openapi_router=Router(
            "/schema", route_handlers=[], include_in_schema=False, after_request=_no_page_of_litestars
        ),
    )


def document(written: dict[str, Any]) -> dict[str, Any]:
    """Litestar's document with exact schemas, every request field described."""
    components, schemas = msgspec.json.schema_components((*WIRE, *EVENTS.values(), Tool), ref_template=REFERENCE)
    *events, tool = components[len(WIRE) :]
    schemas |= dict(zip(EVENTS, events, strict=True))
    properties = schemas["ResponseRequest"]["properties"]
    _items(properties["tools"], tool)
    _items(properties["input"], {"anyOf": [{"$ref": REFERENCE.format(name=item.__name__)} for item in ITEMS]})
    for name, requests in examples().items():
        schemas[name]["examples"] = requests
    for name, table in TABLES.items():
        for field in (it for it in table if "." not in it.name):
            schemas[name]["properties"][field.name].setdefault("description", field.note)
    paths = _streams(_actions(written["paths"]))
    return {**written, "paths": paths, "components": {**written["components"], "schemas": schemas}}


def _items(field: dict[str, Any], known: dict[str, Any]) -> None:
    """Say what an open list is made of; items of other types are skipped or refused by name."""
    for kind in field["anyOf"]:
        if kind.get("type") == "array":
            kind["items"] = known


def _actions(paths: dict[str, Any]) -> dict[str, Any]:
    """The one route of all actions, told as a path for each."""
    described = dict(paths)
    route = dict(described["/admin/models/{model}"])
    post = route.pop("post")
    described["/admin/models/{model}"] = route
    for action, summary in ACTIONS.items():
        operation = {**post, "operationId": f"{post['operationId']}{action.title()}", "summary": summary}
        described[f"/admin/models/{{model}}/{action}"] = {"post": operation}
    return described


def _streams(paths: dict[str, Any]) -> dict[str, Any]:
    """Answers that may be streamed, with both of their content types."""
    described = dict(paths)
    for path, event in STREAMED.items():
        post = described[path]["post"]
        answer = post["responses"]["200"]
        content = {**answer["content"], "text/event-stream": {"schema": {"$ref": REFERENCE.format(name=event)}}}
        responses = {**post["responses"], "200": {**answer, "content": content}}
        described[path] = {**described[path], "post": {**post, "responses": responses}}
    return described


class _Json(JsonRenderPlugin):
    def render(self, request: Request[Any, Any, Any], openapi_schema: dict[str, Any]) -> bytes:
        """The document as it is served."""
        return self.render_json(request, document(openapi_schema))


def _no_page_of_litestars(response: Response[Any]) -> Response[Any]:
    """Litestar answers other paths below ``/schema`` with a page; here they are unknown like any other."""
    if response.status_code == 404:
        raise NotFoundException
    return response
