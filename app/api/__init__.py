"""The web: controllers, translation, rendering. Every endpoint is named here."""

from litestar import Router
from litestar.types import ControllerRouterHandler, Guard

from app.api.chat import ChatController
from app.api.completions import CompletionsController
from app.api.health import HealthController
from app.api.models import ModelsController


def routes(guard: Guard) -> list[ControllerRouterHandler]:
    """All endpoints; ``guard`` stands before those under ``/v1``."""
    v1 = Router("/v1", route_handlers=[CompletionsController, ChatController, ModelsController], guards=[guard])
    return [v1, HealthController]
