"""``switchyard pull``: through the service where one runs, which then knows the model at once, else by itself."""

import asyncio

import msgspec
import rich_click as click

from app.cli.client import Refused, errors_reported, model_path
from app.cli.exits import Exit, leave
from app.cli.reach import Reach, json_option, known_models, reach, reaching
from app.errors import SwitchyardError
from app.schemas.admin import PullProgress
from app.settings import Settings


@click.command()
@click.argument("model", metavar="MODEL[@REVISION]", shell_complete=known_models)
@reaching
@json_option
def pull(model: str, url: str | None, config: str | None, *, as_json: bool) -> None:
    """Fetch a model from the hub, or bring it up to date.

    MODEL is owner/name or an alias of models.toml. What is on disk already is verified, not fetched again; an
    interrupted fetch goes on where it stopped. Where a service runs, it does the work, and goes on after Ctrl-C.
    """
    found = reach(url, config)
    try:
        last = _through_service(found, model, quiet=as_json) if found.served() else _alone(found, model, quiet=as_json)
    except KeyboardInterrupt:
        leave(Exit.INTERRUPTED, "interrupted; the same command goes on where this one stopped")
    if as_json:
        click.echo(msgspec.json.encode(last))
    else:
        click.echo(f"{last.repo} is complete, at commit {last.commit}" if last.commit else f"{last.repo} is complete")


def resolve(model: str, settings: Settings) -> tuple[str, str | None]:
    """The repository and revision that ``model`` means: an alias, ``owner/name`` or either with ``@revision``."""
    name, _, revision = model.partition("@")
    for repo, entry in settings.models.items():
        if name == repo or name in entry.aliases:
            return repo, revision or entry.revision
    return name, revision or None


def _through_service(found: Reach, model: str, *, quiet: bool) -> PullProgress:
    from app.cli.look.progress import Bars  # noqa: PLC0415  rich's progress bars take long to import

    last: PullProgress | None = None
    with errors_reported():
        try:
            with Bars() as bars:
                for last in found.client.stream("POST", model_path(model, "pull"), PullProgress):
                    if not quiet:
                        bars.draw(last.files)
        except Refused as failure:
            leave(Exit.NOT_FETCHED, str(failure))
    if last is None:
        leave(Exit.NOT_FETCHED, "the service told nothing of the download")
    return last


def _alone(found: Reach, model: str, *, quiet: bool) -> PullProgress:
    repo, revision = resolve(model, found.settings)
    try:
        return asyncio.run(_fetch(repo, revision, offline=found.settings.offline, quiet=quiet))
    except SwitchyardError as failure:
        leave(Exit.NOT_FETCHED, failure.message)


async def _fetch(repo: str, revision: str | None, *, offline: bool, quiet: bool) -> PullProgress:
    from app.cli.look.progress import show  # noqa: PLC0415
    from app.registry.hub import Hub  # noqa: PLC0415  so does the hub

    hub = Hub(offline=offline)
    try:
        download = hub.download(repo, revision, refresh=True)
        if not quiet:
            await show(download)
        await download.wait()
        return msgspec.convert(download.progress, PullProgress, from_attributes=True)
    finally:
        await hub.close()
