"""``switchyard pull``."""

import asyncio
import os
from pathlib import Path

import rich_click as click

from app.cli.exits import Exit, leave
from app.cli.options import effective_settings
from app.errors import SwitchyardError
from app.settings import Settings


@click.command()
@click.argument("model", metavar="MODEL[@REVISION]")
@click.option("--config", "config", metavar="FILE", help="A TOML file with the settings you change.")
def pull(model: str, config: str | None) -> None:
    """Fetch a model from the hub, or bring it up to date.

    MODEL is owner/name or an alias of models.toml. What is on disk already is verified, not fetched again; an
    interrupted fetch goes on where it stopped.
    """
    settings = effective_settings(config, dict(os.environ), {}).settings
    repo, revision = resolve(model, settings)
    try:
        path = asyncio.run(_fetch(repo, revision, offline=settings.offline))
    except SwitchyardError as failure:
        leave(Exit.NOT_FETCHED, failure.message)
    except KeyboardInterrupt:
        leave(Exit.INTERRUPTED, "interrupted; the same command goes on where this one stopped")
    click.echo(f"{repo} is complete in {path}")


def resolve(model: str, settings: Settings) -> tuple[str, str | None]:
    """The repository and revision that ``model`` means: an alias, ``owner/name`` or either with ``@revision``."""
    name, _, revision = model.partition("@")
    for repo, entry in settings.models.items():
        if name == repo or name in entry.aliases:
            return repo, revision or entry.revision
    return name, revision or None


async def _fetch(repo: str, revision: str | None, *, offline: bool) -> Path:
    from app.cli.progress import show  # noqa: PLC0415  rich's progress bars take long to import
    from app.registry.hub import Hub  # noqa: PLC0415  so does the hub

    hub = Hub(offline=offline)
    try:
        download = hub.download(repo, revision, refresh=True)
        await show(download)
        return await download.wait()
    finally:
        await hub.close()
