"""``GET /health``, ``/health/live`` and ``/health/ready``; they need no API key."""

from litestar import Controller, Response, get
from litestar.di import NamedDependency

from app.api.observe.service_state import State, Vitals
from app.registry.registry import ModelRegistry
from app.schemas.models import Health


class HealthController(Controller):
    """For whoever keeps the service running."""

    path = "/health"
    tags = ("Health",)

    @get(["/", "/live"], summary="Whether the service answers")
    async def live(self, vitals: NamedDependency[Vitals]) -> Response[Health]:
        """``ok`` as long as the service answers; ``failed`` with 503 once its engine is lost."""
        return _told("ok" if vitals.failure is None else "failed")

    @get("/ready", summary="Whether the service takes requests")
    async def ready(
        self, vitals: NamedDependency[Vitals], registry: NamedDependency[ModelRegistry]
    ) -> Response[Health]:
        """``ok``, or 503 with the reason: ``loading`` models marked preload, ``draining``, ``failed``."""
        if vitals.failure is not None:
            return _told("failed")
        if vitals.draining:
            return _told("draining")
        return _told("loading" if registry.preloading else "ok")


def _told(state: State) -> Response[Health]:
    headers = {} if state == "ok" else {"retry-after": "5"}
    return Response(Health(state), status_code=200 if state == "ok" else 503, headers=headers)
