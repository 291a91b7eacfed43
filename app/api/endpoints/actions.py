"""What may be done with a model: the last part of ``POST /admin/models/{model}/{action}``.

Litestar's path parameters take everything to the end of a URL, so one route takes all actions, and the OpenAPI
document names each of them from ``ACTIONS``.
"""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing
from functools import partial
from typing import Any

from litestar import Request, Response
from litestar.exceptions import NotFoundException
from msgspec import Struct

from app.api.errors import body_of
from app.api.observe.feed import converted, find
from app.api.protect.connection import while_connected
from app.api.write.sse import EventStream, Source
from app.observability import request_id
from app.registry.hub import Download, Progress
from app.registry.registry import ModelRegistry
from app.schemas.admin import PullProgress

ACTIONS = {
    "pull": "Download a hub model, or bring it up to date; the progress as server-sent events",
    "load": "Return once the model is in memory",
    "unload": "Return once the model is out of memory; 409 while it is in use",
    "pin": "Keep a model that is in memory there",
    "unpin": "Let a model be evicted again",
}


async def act(request: Request[Any, Any, Any], path: str, registry: ModelRegistry) -> Response[Any]:
    """Do what the path asks for. Work that outlives an impatient client (a pull, a load) goes on without it."""
    name, _, action = path.strip("/").rpartition("/")
    match action:
        case "pull" if name:
            return await _pull(request, await registry.pull(name))
        case "load" if name:
            done: Callable[[], Awaitable[None]] = partial(registry.load, name)
        case "unload" if name:
            done = partial(registry.unload, name)
        case "pin" | "unpin" if name:
            done = partial(registry.pin, name, pinned=action == "pin")
        case _:
            raise NotFoundException
    await while_connected(request.receive, done())
    state = await find(registry, name)
    return Response(state, status_code=200 if state else 204)


async def _pull(request: Request[Any, Any, Any], download: Download) -> Response[Any]:
    """Progress from the moment that the hub has said what there is; what fails before that keeps its status."""
    moments = download.watch()
    first = await while_connected(request.receive, _resolved(moments))
    if first.state in {"failed", "cancelled"}:
        await moments.aclose()
        await download.wait()
    failure = partial(body_of, where=request_id(request.scope))
    return EventStream(Source(_all(first, moments, download), _render, failure))


async def _resolved(moments: AsyncGenerator[Progress, None]) -> Progress:
    async for moment in moments:
        if moment.state != "resolving":
            return moment
    raise RuntimeError("A download ends in a final state.")


async def _all(
    first: Progress, moments: AsyncGenerator[Progress, None], download: Download
) -> AsyncGenerator[Progress, None]:
    """To the end, or to the failure that ends it."""
    async with aclosing(moments):
        yield first
        async for moment in moments:
            yield moment
    await download.wait()


def _render(moment: Progress) -> list[Struct]:
    return [] if moment.state in {"failed", "cancelled"} else [converted(moment, PullProgress)]
