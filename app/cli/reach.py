"""Which service a command talks to: the flags that say so, and where they lead."""

import os
from collections.abc import Callable
from typing import Any, TypeVar

import rich_click as click
from msgspec import Struct

from app.cli.client import Client
from app.cli.options import effective_settings
from app.settings import Settings

F = TypeVar("F", bound=Callable[..., object])


class Reach(Struct, frozen=True):
    """The settings, the service and its key. ``asked`` says that a person named it, so that nothing else will do."""

    settings: Settings
    client: Client
    asked: bool
    key: str | None = None

    def served(self) -> bool:
        """Whether the service shall do the work: it is there, or it was asked for by name."""
        return self.asked or self.client.there()


def reaching(command: F) -> F:
    """Give a command ``--url`` and ``--config``; :func:`reach` makes a Reach of both."""
    command = click.option("--config", "config", metavar="FILE", help="A TOML file with the settings you change.")(
        command
    )
    return click.option(
        "--url", "url", metavar="URL", envvar="SWITCHYARD_URL", help="The service; by default where settings put it."
    )(command)


def reach(url: str | None, config: str | None) -> Reach:
    """Ends the process with one line when a setting is wrong. The key is ``SWITCHYARD_KEY``, or else the settings'."""
    from app.cli.run.welcome import base_url  # noqa: PLC0415

    settings = effective_settings(config, dict(os.environ), {}).settings
    key = os.environ.get("SWITCHYARD_KEY") or next(iter(settings.api_keys), None)
    return Reach(
        settings,
        Client(url or base_url(settings.host, settings.port, secure=settings.tls_certificate is not None), key),
        url is not None,
        key,
    )


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON.")


def known_models(_context: Any, _parameter: Any, begun: str) -> list[str]:
    """Model names for the shell to complete; none if no service answers."""
    from app.cli.client import Away, Refused  # noqa: PLC0415
    from app.registry.patterns import is_pattern  # noqa: PLC0415
    from app.schemas.admin import AdminModels  # noqa: PLC0415

    try:
        models = reach(os.environ.get("SWITCHYARD_URL"), None).client.ask("GET", "/admin/models", AdminModels).data
    except (Away, Refused, SystemExit):
        return []
    names = [name for model in models for name in (model.id, *model.aliases) if not is_pattern(name)]
    return [name for name in names if name.startswith(begun)]


model_argument = click.argument("model", metavar="MODEL", shell_complete=known_models)
