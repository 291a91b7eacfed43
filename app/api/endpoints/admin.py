"""``/admin``: the state of models and memory, and what may be done with a model."""

from collections.abc import Sequence
from typing import Any

from litestar import Controller, Request, Response, delete, get, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery

from app.api.documented import admin_failures
from app.api.endpoints.actions import act
from app.api.errors import body_of
from app.api.observe import feed
from app.api.observe.feed import Feed
from app.api.read.in_force import in_force
from app.api.write.sse import EventStream, Source
from app.errors import InvalidRequest, ModelNotFound
from app.observability import request_id
from app.registry.registry import ModelRegistry
from app.schemas.admin import (
    AdminEvent,
    AdminFound,
    AdminFoundModels,
    AdminMemory,
    AdminModel,
    AdminModels,
    AdminModelSettings,
    Deleted,
)
from app.settings import Settings

TAGS: Sequence[str] = ("Admin",)
LONGEST = 200
MOST = 50
"""Of words to search for, and of models that are found."""
ACTING = (400, 401, 403, 404, 409, 429, 500, 503)


class AdminModelsController(Controller):
    """Models on this machine, and on their way to it."""

    path = "/models"
    tags = TAGS

    @get("/", responses=admin_failures(401), summary="Where every model stands")
    async def all(self, registry: NamedDependency[ModelRegistry]) -> AdminModels:
        """State, memory, leases, queue and time left of every known model."""
        return AdminModels(await feed.models(registry))

    @get("/{model:path}", responses=admin_failures(400, 401, 404), summary="Where one model stands")
    async def one(self, model: FromPath[str], registry: NamedDependency[ModelRegistry]) -> AdminModel:
        """One model by its id or alias."""
        name = model.strip("/")
        known = await feed.find(registry, name)
        if known is None:
            raise ModelNotFound(f"There is no model {name!r} here. GET /admin/models lists those that there are.")
        return known

    @post("/{model:path}", status_code=200, responses=admin_failures(*ACTING), summary="Do something with a model")
    async def act(
        self, request: Request[Any, Any, Any], model: FromPath[str], registry: NamedDependency[ModelRegistry]
    ) -> Response[Any]:
        """The last part of the URL says what: see the single actions."""
        return await act(request, model, registry)

    @delete("/{model:path}", status_code=200, responses=admin_failures(400, 401, 404, 409), summary="Remove from disk")
    async def remove(self, model: FromPath[str], registry: NamedDependency[ModelRegistry]) -> Deleted:
        """Remove a hub model, all of its revisions, from disk; 409 while it is in memory or asked for."""
        name = model.strip("/")
        return Deleted(name, await registry.delete(name))


class AdminController(Controller):
    """The machine as a whole."""

    path = "/"
    tags = TAGS

    @get("/memory", responses=admin_failures(401), summary="The memory budget and its use")
    async def memory(self, registry: NamedDependency[ModelRegistry]) -> AdminMemory:
        """Budget, weights, KV caches, prefix caches, pool and process, in bytes."""
        return feed.memory(registry)

    @get("/settings/{model:path}", responses=admin_failures(400, 401, 404), summary="The settings of a model in force")
    async def settings(
        self,
        model: FromPath[str],
        registry: NamedDependency[ModelRegistry],
        settings: NamedDependency[Settings],
    ) -> AdminModelSettings:
        """What holds for a model where a request says nothing, and where each setting is written."""
        return in_force(await registry.get(model.strip("/")), settings)

    @get("/search", responses=admin_failures(400, 401, 503), summary="Search the hub")
    async def search(
        self,
        registry: NamedDependency[ModelRegistry],
        q: FromQuery[str],
        limit: FromQuery[int] = 20,
        every: FromQuery[bool] = False,
    ) -> AdminFoundModels:
        """Models made for MLX, or `every` one with safetensors, that have the words `q` in their names."""
        words = q.strip()
        if not 0 < len(words) <= LONGEST:
            raise InvalidRequest(f"q must be 1 to {LONGEST} characters of a model's name.", param="q")
        if not 1 <= limit <= MOST:
            raise InvalidRequest(f"limit must be a number from 1 to {MOST}.", param="limit")
        found = await registry.search(words, limit, every=every)
        return AdminFoundModels(tuple(feed.converted(it, AdminFound) for it in found))

    @get("/events", responses=admin_failures(401), summary="Follow models, memory and requests")
    async def events(
        self,
        request: Request[Any, Any, Any],
        registry: NamedDependency[ModelRegistry],
        live: NamedDependency[Feed],
    ) -> Response[Any]:
        """Server-sent events: everything at once, then what has changed, as it changes."""

        def failure(error: Exception) -> Any:
            return body_of(error, request_id(request.scope))

        def render(event: AdminEvent) -> list[AdminEvent]:
            return [event]

        return EventStream(Source(live.watch(registry), render, failure))
