"""``GET /v1/models``."""

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import FromPath

from app.api.documented import failures
from app.registry import status
from app.registry.registry import ModelRegistry
from app.schemas.models import ModelCard, ModelList


class ModelsController(Controller):
    """What may be asked for by name."""

    path = "/models"
    tags = ("Models",)

    @get("/", responses=failures(401), summary="List the models")
    async def listed(self, registry: NamedDependency[ModelRegistry]) -> ModelList:
        """Every model on this machine and every configured one; any allowed hub repository may be asked for as well."""
        return ModelList(data=[_wire(card) for card in await registry.list()])

    @get("/{model:path}", responses=failures(400, 401, 404), summary="Look at one model")
    async def one(self, model: FromPath[str], registry: NamedDependency[ModelRegistry]) -> ModelCard:
        """One model by its id or alias; slashes may be written as they are or as %2F."""
        return _wire(await registry.get(model.removeprefix("/")))


def _wire(card: status.ModelCard) -> ModelCard:
    return ModelCard(id=card.id, created=card.created, owned_by=card.owned_by, aliases=card.aliases)
