"""``switchyard service``: have the system start the service, and start it again."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import rich_click as click
from msgspec import Struct

from app.cli import unit
from app.cli.exits import Exit, leave
from app.cli.options import effective_settings


class Manager(Struct, frozen=True):
    """What runs services here: its file for this one, and the commands to give it."""

    file: Path
    start: tuple[tuple[str, ...], ...]
    stop: tuple[tuple[str, ...], ...]
    status: tuple[str, ...]


def manager(platform: str = sys.platform, home: Path | None = None) -> Manager:
    """Launchd on macOS, systemd's user instance elsewhere."""
    home = Path.home() if home is None else home
    if platform == "darwin":
        file, domain = home / "Library" / "LaunchAgents" / f"{unit.LABEL}.plist", f"gui/{os.getuid()}"
        return Manager(
            file=file,
            start=(("launchctl", "bootstrap", domain, str(file)),),
            stop=(("launchctl", "bootout", f"{domain}/{unit.LABEL}"),),
            status=("launchctl", "print", f"{domain}/{unit.LABEL}"),
        )
    systemctl = ("systemctl", "--user")
    config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
    return Manager(
        file=config / "systemd" / "user" / "switchyard.service",
        start=((*systemctl, "daemon-reload"), (*systemctl, "enable", "--now", "switchyard")),
        stop=((*systemctl, "disable", "--now", "switchyard"), (*systemctl, "daemon-reload")),
        status=(*systemctl, "status", "--no-pager", "switchyard"),
    )


@click.group()
def service() -> None:
    """Have launchd or systemd run the service for the user who is logged in."""


@service.command()
@click.option("--config", "config", metavar="FILE", help="The TOML file with the settings of the service.")
@click.option("--no-start", is_flag=True, help="Write the file alone.")
def install(config: str | None, *, no_start: bool) -> None:
    """Start the service now and at every login. Its settings stand in a file; the shell's environment is not kept."""
    settings = effective_settings(config, {}, {}).settings
    file = None if config is None else Path(config).resolve()
    here = manager()
    if sys.platform == "darwin":
        text = unit.launchd(file, grace=settings.stop_grace, log=Path.home() / "Library" / "Logs" / "switchyard.log")
    else:
        text = unit.systemd(file, grace=settings.stop_grace)
    here.file.parent.mkdir(parents=True, exist_ok=True)
    here.file.write_text(text, encoding="utf-8")
    click.echo(f"wrote {here.file}")
    if not no_start:
        for command in here.start:
            _run(command)
        click.echo("the service is started; `switchyard service status` looks at it")


@service.command()
def status() -> None:
    """Show what the system says of the service."""
    sys.exit(_run(manager().status, check=False))


@service.command()
def uninstall() -> None:
    """Stop the service and forget it. Models and settings stay."""
    here = manager()
    if not here.file.exists():
        leave(Exit.USAGE, f"there is no {here.file}: the service is not installed")
    for command in here.stop[:1]:
        _run(command, check=False)
    here.file.unlink()
    for command in here.stop[1:]:
        _run(command, check=False)
    click.echo(f"removed {here.file}")


def _run(command: tuple[str, ...], *, check: bool = True) -> int:
    program = shutil.which(command[0])
    if program is None:
        leave(Exit.FAILED, f"{command[0]} was not found; start the service in the way of this system")
    code = subprocess.run([program, *command[1:]], check=False).returncode  # noqa: S603  our own words
    if check and code:
        leave(Exit.FAILED, f"`{' '.join(command)}` failed; the lines above say why")
    return code
