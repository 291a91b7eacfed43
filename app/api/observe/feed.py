"""The live view behind the page and ``switchyard ps --watch``: snapshots, taken when something has changed."""

import asyncio
from collections.abc import AsyncGenerator
from typing import TypeVar

import msgspec
from msgspec import UNSET, Struct, UnsetType

from app import __version__
from app.api.observe.journal import Journal
from app.registry.registry import ModelRegistry
from app.schemas.admin import AdminEvent, AdminMemory, AdminModel, Service

QUIET_SECONDS = 0.2
"""Changes that come closer together than this are told together."""

T = TypeVar("T", bound=Struct)
N = TypeVar("N")


class Feed:
    """What any number of watchers are told. :meth:`close` ends them all, so that the service can stop at once."""

    def __init__(self, journal: Journal, default_model: str, *, offline: bool = False) -> None:
        self._journal = journal
        self._service = Service(version=__version__, default_model=default_model, offline=offline)
        self._closed = False

    def close(self) -> None:
        """End every stream."""
        self._closed = True
        self._journal.changes.tell()

    async def watch(self, registry: ModelRegistry) -> AsyncGenerator[AdminEvent, None]:
        """All there is, then what has changed; a slow reader skips moments."""
        changed, last = asyncio.Event(), AdminEvent()
        with registry.changes.wake(changed), self._journal.changes.wake(changed):
            while not self._closed:
                changed.clear()
                now = await self._now(registry)
                event = AdminEvent(
                    service=_news(last.service, now.service),
                    models=_news(last.models, now.models),
                    memory=_news(last.memory, now.memory),
                    requests=_news(last.requests, now.requests),
                )
                if event != AdminEvent():
                    yield event
                last = now
                await changed.wait()
                if not self._closed:
                    await asyncio.sleep(QUIET_SECONDS)

    async def _now(self, registry: ModelRegistry) -> AdminEvent:
        return AdminEvent(
            service=self._service,
            models=await models(registry),
            memory=memory(registry),
            requests=self._journal.entries(),
        )


async def find(registry: ModelRegistry, name: str) -> AdminModel | None:
    """One model by its id or alias, if it is known."""
    names = {name, name.removesuffix("@main")}
    for model in await models(registry):
        if names & {model.id, *model.aliases}:
            return model
    return None


async def models(registry: ModelRegistry) -> tuple[AdminModel, ...]:
    """Every model as it is told."""
    return tuple(converted(status, AdminModel) for status in await registry.status())


def memory(registry: ModelRegistry) -> AdminMemory:
    """The memory as it is told."""
    return converted(registry.memory(), AdminMemory)


def converted(value: Struct, kind: type[T]) -> T:
    """A snapshot of the registry's as its wire shape, field by field."""
    return msgspec.convert(value, kind, from_attributes=True)


def _news(before: N, now: N) -> N | UnsetType:
    return UNSET if before == now else now
