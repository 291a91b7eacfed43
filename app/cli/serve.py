"""``switchyard serve``."""

import os
import sys

import rich_click as click

from app import __version__
from app.cli.exits import Exit, leave
from app.cli.options import Given, effective_settings, settings_options


@click.command()
@settings_options
def serve(config: str | None, **given: Given) -> None:
    """Start the service.

    Every setting can also stand in a file (--config) or in the environment: --port is SWITCHYARD_PORT.
    """
    settings = effective_settings(config, dict(os.environ), given).settings

    from app.cli import native  # noqa: PLC0415  only serve needs it

    if native.backend() is None:
        leave(Exit.NO_BACKEND, "no MLX backend is installed; ./docker-free-run.sh installs the one for this machine")
    advice = native.openblas_advice()
    if advice is not None:
        sys.stderr.write(f"switchyard: {advice}\n")

    from app.cli import server  # noqa: PLC0415  uvicorn takes long to import
    from app.cli.welcome import base_url, welcome  # noqa: PLC0415

    sock = server.bind(settings.host, settings.port)
    url = base_url(settings.host, sock.getsockname()[1])

    from app.main import create_app  # noqa: PLC0415  the web framework takes long to import

    app = create_app(settings)
    server.run(app, sock, settings, lambda: click.echo(welcome(__version__, url, settings)), app.state.live.close)
