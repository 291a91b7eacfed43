"""``GET /health``, ``/health/live`` and ``/health/ready``; they need no API key."""

from litestar import Controller, Response, get
from litestar.di import NamedDependency

from app.api.observe.service_state import ServiceState, State
from app.registry.registry import ModelRegistry
from app.schemas.models import Health


class HealthController(Controller):
    """For whoever keeps the service running."""

    path = "/health"
    tags = ("Health",)

    @get(["/", "/live"], summary="Whether the service answers")
    async def live(self, registry: NamedDependency[ModelRegistry]) -> Response[Health]:
        """``ok`` as long as the service answers, and which models are well."""
        return _health("ok", registry)

    @get("/ready", summary="Whether the service takes requests")
    async def ready(
        self, service_state: NamedDependency[ServiceState], registry: NamedDependency[ModelRegistry]
    ) -> Response[Health]:
        """``ok``, or 503 with the reason: ``loading`` models marked preload, ``draining``."""
        if service_state.draining:
            return _health("draining", registry)
        return _health("loading" if registry.preloading else "ok", registry)


def _health(state: State, registry: ModelRegistry) -> Response[Health]:
    headers = {} if state == "ok" else {"retry-after": "5"}
    return Response(Health(state, registry.health()), status_code=200 if state == "ok" else 503, headers=headers)
