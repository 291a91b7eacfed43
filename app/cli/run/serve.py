"""``switchyard serve``."""

import os
import resource
import sys
from pathlib import Path
from typing import Any

import rich_click as click

from app import __version__
from app.cli.exits import Exit, leave
from app.cli.options import Given, effective_settings, settings_options
from app.settings.load import read_models
from app.settings.problem import SettingsProblem

OPEN_FILES = 65536
"""More than any number of connections that is allowed here."""


@click.command()
@settings_options
def serve(config: str | None, **given: Given) -> None:
    """Start the service.

    Every setting can also stand in a file (--config) or in the environment: --port is SWITCHYARD_PORT.
    """
    effective = effective_settings(config, dict(os.environ), given)
    settings = effective.settings

    from app.engine import native  # noqa: PLC0415  only serve needs it

    if native.backend() is None:
        leave(Exit.NO_BACKEND, "no MLX backend is installed; ./docker-free-run.sh installs the one for this machine")
    advice = native.openblas_advice()
    if advice is not None:
        sys.stderr.write(f"switchyard: {advice}\n")
    native.prepare()

    for line in effective.changed:
        sys.stderr.write(f"switchyard: {line}\n")
    raise_open_files()

    from app.cli.run import launched, listen, server  # noqa: PLC0415  uvicorn takes long to import
    from app.cli.run.exposure import check_exposure  # noqa: PLC0415
    from app.cli.run.welcome import base_url, welcome  # noqa: PLC0415

    check_exposure(settings)
    launched.keep_logs_small()
    socks = listen.bind(settings.host, settings.port)
    url = base_url(settings.host, socks[0].getsockname()[1], secure=settings.tls_certificate is not None)

    from app.main import create_app  # noqa: PLC0415  the web framework takes long to import

    try:
        app = create_app(settings)
    except SettingsProblem as problem:
        leave(Exit.USAGE, str(problem))
    hooks = server.Hooks(
        on_ready=lambda: click.echo(welcome(__version__, url, settings)),
        on_hangup=lambda: reload(app, Path(effective.origins["models"])),
        on_stop=app.state.live.close,
        drain=app.state.service_state.drain,
    )
    server.run(app, socks, settings, hooks)
    server.leave_at_once()


def raise_open_files() -> None:
    """Allow as many open files as the system lets this process have: each connection and each model takes some."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = OPEN_FILES if hard == resource.RLIM_INFINITY else min(hard, OPEN_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def reload(app: Any, models: Path) -> None:
    """Read ``models.toml`` and the key file again; what is wrong with them is said, and changes nothing."""
    try:
        app.state.middleware.reload(read_models(models))
    except SettingsProblem as problem:
        sys.stderr.write(f"switchyard: not reloaded: {problem}\n")
    else:
        sys.stderr.write("switchyard: reloaded models.toml and the key file\n")
