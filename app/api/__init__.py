"""The web: controllers, translation, rendering. Every endpoint is named here."""

from litestar import Router
from litestar.types import ControllerRouterHandler, Guard

from app.api.admin import AdminController, AdminModelsController
from app.api.chat import ChatController
from app.api.completions import CompletionsController
from app.api.guards import own_pages_only
from app.api.health import HealthController
from app.api.models import ModelsController


def routes(guard: Guard) -> list[ControllerRouterHandler]:
    """All endpoints; ``guard`` stands before those under ``/v1`` and ``/admin``."""
    v1 = Router("/v1", route_handlers=[CompletionsController, ChatController, ModelsController], guards=[guard])
    admin = Router("/admin", route_handlers=[AdminController, AdminModelsController], guards=[guard, own_pages_only])
    return [v1, admin, HealthController]
