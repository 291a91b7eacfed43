"""Models on this machine that will not load, and why, as far as their files tell."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import msgspec
from msgspec import Struct

from app.cli.check.architectures import architectures
from app.errors import SwitchyardError
from app.registry.catalog import Catalog
from app.registry.hub import Hub, weight_bytes
from app.registry.report import hub_source
from app.registry.sources import LocalDirectory
from app.settings import Settings
from app.settings.sizes import format_size


class _Config(Struct):
    model_type: str = ""


def directories(settings: Settings) -> dict[str, Path]:
    """Every model on this machine by its id."""
    return asyncio.run(_directories(settings))


def troubles(places: dict[str, Path], budget: int | None) -> Iterator[tuple[str, str]]:
    """The id of each model that will not load, and why. ``budget`` is in bytes, None where it is not known."""
    for model, place in places.items():
        why = trouble(place, budget)
        if why is not None:
            yield model, why


def trouble(place: Path, budget: int | None) -> str | None:
    """What keeps the model in that directory from loading; None if nothing is seen."""
    try:
        family = msgspec.json.decode((place / "config.json").read_bytes(), type=_Config).model_type
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return "its config.json is missing, or is no description of a model"
    known = architectures()
    if known is not None and family not in known:
        return f"its family, {family or 'none'}, is not one that loads here ('switchyard families' lists them)"
    try:
        weights = weight_bytes(place)
    except (OSError, SwitchyardError) as failure:
        return str(failure)
    if weights == 0:
        return "it has no weights in safetensors"
    if budget is not None and weights > budget:
        return f"its weights, {format_size(weights)}, are more than the budget of {format_size(budget)}"
    return None


async def _directories(settings: Settings) -> dict[str, Path]:
    catalog, hub = Catalog(settings), Hub(offline=True)
    try:
        found = {it.id: it.path for it in await catalog.sources() if isinstance(it, LocalDirectory)}
        return found | {hub_source(it).id: it.path for it in await hub.installed() if catalog.allows(it.repo)}
    finally:
        await hub.close()
