"""What the command line does by itself when no service runs: look at models on disk, and remove them."""

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
from msgspec import Struct

from app.schemas.admin import AdminModel, AdminModelSettings
from app.schemas.admin import Source as Origin
from app.settings import Settings

if TYPE_CHECKING:
    from app.registry.sources import Source


class Facts(Struct, frozen=True, omit_defaults=True):
    """What a model's own files say of it, and the bytes of its weights."""

    architecture: str | None = None
    context_length: int | None = None
    quantization: str | None = None
    weight_bytes: int = 0


class _Config(Struct):
    model_type: str | None = None
    max_position_embeddings: int | None = None
    quantization: dict[str, Any] | None = None
    torch_dtype: str | None = None


def models(settings: Settings) -> tuple[AdminModel, ...]:
    """Every model of this machine, by id."""
    return asyncio.run(_models(settings))


def facts(settings: Settings, model: str) -> Facts | None:
    """What its files say; None if they are not here. Raises :class:`app.errors.ModelNotFound` for what cannot be."""
    _, path = asyncio.run(_found(settings, model))
    return None if path is None else read_facts(path)


def in_force(settings: Settings, model: str) -> AdminModelSettings:
    """The settings that would hold for it. Raises :class:`app.errors.ModelNotFound` for what cannot be."""
    from app.api.read import in_force as resolved  # noqa: PLC0415
    from app.registry import abilities, report  # noqa: PLC0415

    source, path = asyncio.run(_found(settings, model))
    able = report.abilities_of(source, {} if path is None else {source.id: abilities.read(path, source.id)}, {})
    return resolved.in_force(report.cards(source, (), able, 0)[0], settings)


def remove(settings: Settings, model: str) -> int:
    """Delete a hub model; the bytes that were freed. Raises :class:`app.errors.SwitchyardError`."""
    return asyncio.run(_remove(settings, model))


def read_facts(path: Path) -> Facts:
    """What stands in a model directory."""
    from app.errors import SwitchyardError  # noqa: PLC0415
    from app.registry.hub import weight_bytes  # noqa: PLC0415

    try:
        config = msgspec.json.decode((path / "config.json").read_bytes(), type=_Config)
        weights = weight_bytes(path)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError, SwitchyardError):
        return Facts()
    quantization = config.quantization or {}
    bits = f"{quantization['bits']} bits" if "bits" in quantization else config.torch_dtype
    return Facts(config.model_type, config.max_position_embeddings, bits, weights)


async def _models(settings: Settings) -> tuple[AdminModel, ...]:
    from app.registry.catalog import Catalog  # noqa: PLC0415  these bring in the hub
    from app.registry.hub import Hub  # noqa: PLC0415
    from app.registry.report import hub_source, origin  # noqa: PLC0415
    from app.registry.sources import HubRepo  # noqa: PLC0415

    catalog, hub = Catalog(settings), Hub(offline=True)
    known = {source.id: (origin(source), not isinstance(source, HubRepo)) for source in await catalog.sources()}
    for installed in await hub.installed():
        if catalog.allows(installed.repo):
            known[hub_source(installed).id] = ("hub", True)
    await hub.close()
    return tuple(_row(id_, it, catalog.aliases(id_), here=here) for id_, (it, here) in sorted(known.items()))


async def _found(settings: Settings, model: str) -> "tuple[Source, Path | None]":
    """Where it comes from, and the directory of its files if there is one here."""
    from app.registry.catalog import Catalog  # noqa: PLC0415
    from app.registry.hub import Hub  # noqa: PLC0415
    from app.registry.sources import Adapted, HubRepo, LocalDirectory  # noqa: PLC0415

    hub = Hub(offline=True)
    try:
        source = await Catalog(settings, spelled=hub.spelled).find(model)
        match source.base if isinstance(source, Adapted) else source:
            case LocalDirectory() as directory:
                return source, directory.path
            case HubRepo() as repo:
                return source, await hub.local(repo.repo, repo.revision)
            case _:
                return source, None
    finally:
        await hub.close()


async def _remove(settings: Settings, model: str) -> int:
    from app.errors import InvalidRequest  # noqa: PLC0415
    from app.registry.catalog import Catalog  # noqa: PLC0415
    from app.registry.hub import Hub  # noqa: PLC0415
    from app.registry.sources import HubRepo  # noqa: PLC0415

    hub = Hub(offline=True)
    try:
        source = await Catalog(settings, spelled=hub.spelled).find(model)
        if not isinstance(source, HubRepo):
            raise InvalidRequest(f"{source.id} is not a model of the hub; remove its files yourself.")
        return await hub.delete(source.repo)
    finally:
        await hub.close()


def _row(id_: str, source: Origin, aliases: tuple[str, ...], *, here: bool) -> AdminModel:
    return AdminModel(
        id=id_,
        source=source,
        state="on_disk" if here else "absent",
        aliases=aliases,
        pinned=False,
        download=None,
        nbytes=0,
        kv_bytes=0,
        leases=0,
        queued=0,
        idle_seconds=None,
        expires_in=None,
    )
