"""The web: controllers, translation, rendering. Every endpoint is named here."""

from collections.abc import Callable

from litestar import Router
from litestar.types import ControllerRouterHandler, Guard

from app.api.endpoints.admin import AdminController, AdminModelsController
from app.api.endpoints.chat import ChatController
from app.api.endpoints.completions import CompletionsController
from app.api.endpoints.embeddings import EmbeddingsController, RerankController
from app.api.endpoints.health import HealthController
from app.api.endpoints.messages import MessagesController
from app.api.endpoints.models import ModelsController
from app.api.endpoints.page import PageController
from app.api.endpoints.responses import ResponsesController
from app.api.endpoints.tokenize import TokenizeController
from app.api.observe.metrics import MetricsController
from app.api.protect.guards import own_pages_only
from app.settings.keys import Scope


def routes(guard: Callable[[Scope], Guard]) -> list[ControllerRouterHandler]:
    """All endpoints; ``guard`` makes the one that asks for a key with a scope."""
    dialects = [CompletionsController, ChatController, ResponsesController, MessagesController]
    infer = guard("infer")
    others = [TokenizeController, RerankController, EmbeddingsController, ModelsController]
    v1 = Router("/v1", route_handlers=[*dialects, *others], guards=[infer])
    v2 = Router("/v2", route_handlers=[RerankController], guards=[infer])
    bare = Router("/", route_handlers=[TokenizeController, RerankController], guards=[infer])
    admin = Router(
        "/admin", route_handlers=[AdminController, AdminModelsController], guards=[guard("admin"), own_pages_only]
    )
    metrics = Router("/metrics", route_handlers=[MetricsController], guards=[guard("metrics")])
    return [v1, v2, bare, admin, metrics, HealthController, PageController]
