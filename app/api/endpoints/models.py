"""``GET /v1/models``."""

from typing import Any

from litestar import Controller, Request, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.api.documented import failures
from app.api.protect.access import caller_of
from app.errors import ModelNotFound
from app.registry import status
from app.registry.registry import ModelRegistry
from app.schemas.models import ModelCard, ModelList


class ModelsController(Controller):
    """What may be asked for by name."""

    path = "/models"
    tags = ("Models",)

    @get("/", responses=failures(401), summary="List the models")
    async def listed(self, request: Request[Any, Any, Any], registry: NamedDependency[ModelRegistry]) -> ModelList:
        """Every model on this machine and every configured one; any allowed hub repository may be asked for as well."""
        caller = caller_of(request.scope)
        return ModelList(
            data=[_wire(card) for card in await registry.list() if caller is None or caller.allows(card.id)]
        )

    @get("/{model:path}", responses=failures(400, 401, 404), summary="Look at one model")
    async def one(
        self, request: Request[Any, Any, Any], model: FromPath[str], registry: NamedDependency[ModelRegistry]
    ) -> ModelCard:
        """One model by its id or alias; slashes may be written as they are or as %2F."""
        name, caller = model.removeprefix("/"), caller_of(request.scope)
        if caller is not None and not caller.allows(registry.canonical(name)):
            raise ModelNotFound(f"There is no model {name!r} for this key. GET /v1/models lists those that there are.")
        return _wire(await registry.get(name))


def _wire(card: status.ModelCard) -> ModelCard:
    return ModelCard(id=card.id, created=card.created, owned_by=card.owned_by, aliases=card.aliases)
