"""``switchyard search``: through the service where one runs, which knows what fits, else by itself."""

import asyncio

import msgspec
import rich_click as click

from app.cli.client import errors_reported
from app.cli.exits import Exit, leave
from app.cli.reach import json_option, reach, reaching
from app.cli.words import size, table
from app.schemas.admin import AdminFound, AdminFoundModels
from app.settings import Settings

FITS = {True: "yes", False: "no", None: "-"}


@click.command()
@click.argument("words", nargs=-1, required=True)
@click.option("--limit", type=click.IntRange(1, 50), default=20, show_default=True, help="How many at most.")
@click.option("--every", is_flag=True, help="Models with safetensors that nobody has made for MLX, too.")
@reaching
@json_option
def search(
    words: tuple[str, ...], *, limit: int, every: bool, url: str | None, config: str | None, as_json: bool
) -> None:
    """Search the hub for models by words of their names: sizes, and whether they fit the memory budget.

    Whether they fit is known to a running service alone.
    """
    from urllib.parse import urlencode  # noqa: PLC0415

    found, asked = reach(url, config), " ".join(words)
    if found.served():
        query = urlencode({"q": asked, "limit": limit, "every": str(every).lower()})
        with errors_reported():
            models = found.client.ask("GET", f"/admin/search?{query}", AdminFoundModels).data
    else:
        models = _alone(found.settings, asked, limit, every=every)
    if as_json:
        click.echo(msgspec.json.encode(AdminFoundModels(models)))
        return
    if not models:
        leave(Exit.REFUSED, f"the hub has no model for MLX that is called {asked}; --every looks among all models")
    rows = [
        (it.id, "?" if it.nbytes is None else size(it.nbytes), FITS[it.fits], _remarks(it), str(it.downloads))
        for it in models
    ]
    click.echo(table(("MODEL", "WEIGHTS", "FITS", "", "DOWNLOADS"), rows))


def _remarks(model: AdminFound) -> str:
    return ", ".join(word for word, so in (("on disk", model.on_disk), ("gated", model.gated)) if so) or "-"


def _alone(settings: Settings, words: str, limit: int, *, every: bool) -> tuple[AdminFound, ...]:
    from app.errors import SwitchyardError  # noqa: PLC0415

    try:
        return asyncio.run(_asked(settings, words, limit, every=every))
    except SwitchyardError as failure:
        leave(Exit.REFUSED, failure.message)


async def _asked(settings: Settings, words: str, limit: int, *, every: bool) -> tuple[AdminFound, ...]:
    from app.registry.hub import Hub  # noqa: PLC0415  slow to import

    hub = Hub(offline=settings.offline)
    try:
        found, here = await hub.search(words, limit, every=every), {it.repo for it in await hub.installed()}
    finally:
        await hub.close()
    return tuple(
        AdminFound(
            id=it.repo,
            nbytes=it.nbytes,
            downloads=it.downloads,
            gated=it.gated,
            fits=None,
            on_disk=it.repo in here,
        )
        for it in found
    )
