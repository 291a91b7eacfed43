"""``switchyard service``: have the system start the service, and start it again."""

import os
import sys
from pathlib import Path

import rich_click as click

from app.cli.exits import Exit, leave
from app.cli.options import effective_settings
from app.cli.system import unit
from app.cli.system.managers import manager


@click.group()
def service() -> None:
    """Have launchd or systemd run the service for the user who is logged in."""


@service.command()
@click.option("--config", "config", metavar="FILE", help="The TOML file with the settings of the service.")
@click.option("--no-start", is_flag=True, help="Write the file alone.")
def install(config: str | None, *, no_start: bool) -> None:
    """Start the service now and at every login, in place of the one that was installed before.

    Its settings stand in a file. Of the shell's environment it keeps where the hub's files and token are (HF_HOME,
    HF_TOKEN_PATH and the like), proxies and certificates.
    """
    settings = effective_settings(config, {}, {}).settings
    file = None if config is None else Path(config).resolve()
    here, environ = manager(), unit.kept(os.environ)
    _warn(file, environ)
    here.file.parent.mkdir(parents=True, exist_ok=True)
    text = here.text(file, settings.stop_grace, environ)
    here.file.unlink(missing_ok=True)
    with os.fdopen(os.open(here.file, os.O_WRONLY | os.O_CREAT, 0o600), "w", encoding="utf-8") as stream:
        stream.write(text)  # a proxy's address may hold a password
    click.echo(f"wrote {here.file}")
    if not no_start:
        here.start(settings.stop_grace)
        click.echo("the service is started; `switchyard service status` looks at it")


@service.command()
def status() -> None:
    """Show what the system says of the service."""
    sys.exit(manager().status())


@service.command()
def uninstall() -> None:
    """Stop the service and forget it. Models and settings stay."""
    here = manager()
    if not here.file.exists():
        leave(Exit.USAGE, f"there is no {here.file}: the service is not installed")
    here.stop(effective_settings(None, {}, {}).settings.stop_grace)
    here.file.unlink()
    here.forget()
    click.echo(f"removed {here.file}")


def _warn(config: Path | None, environ: dict[str, str]) -> None:
    """Say what the service will not have although this shell has it."""
    folders = [Path(environ[name]) for name in ("HF_HOME", "HF_HUB_CACHE", "HF_TOKEN_PATH") if name in environ]
    paths = [Path(__file__).parents[3], Path(sys.executable), *folders, *([] if config is None else [config])]
    for line in manager().warnings(paths):
        sys.stderr.write(f"switchyard: {line}\n")
    if os.environ.get("HF_TOKEN"):
        sys.stderr.write(
            "switchyard: HF_TOKEN is not kept, a file of a service is no place for secrets; `hf auth login` puts the "
            "token where the service finds it\n"
        )
