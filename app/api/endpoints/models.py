"""``GET /v1/models``, for OpenAI's clients and for Anthropic's."""

from datetime import UTC, datetime
from typing import Any

from litestar import Controller, Request, Response, get
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import FromPath

from app.api.anthropic_errors import speaks_anthropic
from app.api.documented import failures
from app.api.protect.access import caller_of
from app.errors import InvalidRequest, ModelNotFound
from app.registry import status
from app.registry.registry import ModelRegistry
from app.schemas.anthropic_answer import AnthropicModel, AnthropicModelList
from app.schemas.models import ModelCapabilities, ModelCard, ModelList

ALL = ResponseSpec(
    ModelList,
    generate_examples=False,
    description="All of them; with the header `anthropic-version` as Anthropic lists them, by `limit`, `after_id` and "
    "`before_id`.",
)
ONE = ResponseSpec(ModelCard, generate_examples=False, description="The model.")


class ModelsController(Controller):
    """What may be asked for by name."""

    path = "/models"
    tags = ("Models",)

    @get("/", responses={200: ALL, **failures(401)}, summary="List the models")
    async def listed(self, request: Request[Any, Any, Any], registry: NamedDependency[ModelRegistry]) -> Response[Any]:
        """Every model on this machine and every configured one; any allowed hub repository may be asked for as well."""
        caller = caller_of(request.scope)
        cards = [card for card in await registry.list() if caller is None or caller.allows(card.root)]
        if speaks_anthropic(request.scope):
            return Response(_page([_anthropic(card) for card in cards], request.query_params))
        return Response(ModelList(data=[_wire(card) for card in cards]))

    @get("/{model:path}", responses={200: ONE, **failures(400, 401, 404)}, summary="Look at one model")
    async def one(
        self, request: Request[Any, Any, Any], model: FromPath[str], registry: NamedDependency[ModelRegistry]
    ) -> Response[Any]:
        """One model by its id or alias; slashes may be written as they are or as %2F."""
        name, caller = model.removeprefix("/"), caller_of(request.scope)
        if caller is not None and not caller.allows(registry.canonical(name)):
            raise ModelNotFound(f"There is no model {name!r} for this key. GET /v1/models lists those that there are.")
        card = await registry.get(name)
        return Response(_anthropic(card) if speaks_anthropic(request.scope) else _wire(card))


def _wire(card: status.ModelCard) -> ModelCard:
    can = card.abilities
    return ModelCard(
        id=card.id,
        created=card.created,
        owned_by=card.owned_by,
        kind=can.kind,
        root=card.root,
        parent=card.parent,
        aliases=card.aliases,
        max_model_len=can.context_length,
        context_length=can.context_length,
        max_output_tokens=can.context_length if can.kind == "text" else None,
        capabilities=ModelCapabilities(
            chat=can.chat,
            completions=can.kind == "text",
            tools=can.tools,
            reasoning=can.thinking,
            embeddings=can.kind == "embedding",
            rerank=can.kind == "rerank",
        ),
    )


def _anthropic(card: status.ModelCard) -> AnthropicModel:
    created, context = datetime.fromtimestamp(card.created, UTC), card.abilities.context_length
    return AnthropicModel(
        id=card.id, display_name=card.id, created_at=created, max_input_tokens=context, max_tokens=context
    )


def _page(models: list[AnthropicModel], asked: Any) -> AnthropicModelList:
    """The models after ``after_id`` or before ``before_id``, ``limit`` of them; all where nothing is asked."""
    ids = [model.id for model in models]
    for name in ("after_id", "before_id"):
        if name in asked and asked[name] not in ids:
            raise InvalidRequest(f"{name} must be the id of a model on the list.", param=name)
    first = ids.index(asked["after_id"]) + 1 if "after_id" in asked else 0
    last = ids.index(asked["before_id"]) if "before_id" in asked else len(ids)
    limit = asked.get("limit", "1000")
    if not (limit.isascii() and limit.isdigit() and 1 <= int(limit[:9]) <= 1000):
        raise InvalidRequest("limit must be a number from 1 to 1000.", param="limit")
    found = models[first:last]
    kept = found[-int(limit) :] if "before_id" in asked else found[: int(limit)]
    ends = (kept[0].id, kept[-1].id) if kept else (None, None)
    return AnthropicModelList(data=kept, has_more=len(kept) < len(found), first_id=ends[0], last_id=ends[1])
