"""``GET /health``."""

from litestar import Controller, get

from app.schemas.models import Health


class HealthController(Controller):
    """Whether the service answers; needs no API key."""

    path = "/health"
    tags = ("Health",)

    @get(["/", "/live", "/ready"], summary="Whether the service answers")
    async def health(self) -> Health:
        """``ok`` once requests are taken."""
        return Health()
