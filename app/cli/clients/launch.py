"""``switchyard launch``."""

import os
import shlex
import shutil
from contextlib import suppress
from typing import NoReturn
from urllib.parse import quote

import rich_click as click

from app.cli.client import Away, Refused
from app.cli.clients.agents import Launch, Service, agents
from app.cli.exits import Exit, leave
from app.cli.reach import Reach, known_models, reach, reaching
from app.schemas.models import ModelCard

PLACEHOLDER = "YOUR_KEY"
LEAST_CONTEXT = 24576
"""Tokens below which an agent has no room for a conversation beside its own instructions."""


@click.command(context_settings={"ignore_unknown_options": True})
@click.option("--model", metavar="MODEL", shell_complete=known_models, help="Default: the default model.")
@click.option("--print", "shown", is_flag=True, help="Print the command instead of running it; keys are not shown.")
@reaching
@click.argument("client", type=click.Choice(sorted(agents())))
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
def launch(
    client: str, *, arguments: tuple[str, ...], model: str | None, shown: bool, url: str | None, config: str | None
) -> None:
    """Start a coding agent on a model of this service.

    It is told of the service by flags and variables alone: none of your files is changed. Other arguments are handed to
    it, and so is all that comes after --.
    """
    agent, found = agents()[client], reach(url, config)
    name = found.settings.default_model if model is None else model
    context = _context(found, name)
    if shown:
        key = "none" if found.key is None else PLACEHOLDER
        click.echo(_spelt(agent.launch(Service(found.client.url, key, name, context)), arguments))
        return
    program = shutil.which(agent.program)
    if program is None:
        leave(Exit.NO_CLIENT, f"{agent.program} is not installed; get it with: {agent.install}")
    if not found.client.there():
        leave(Exit.NO_SERVER, f"nothing answers at {found.client.url}; start the service, or name it with --url")
    if context is not None and context < LEAST_CONTEXT:
        click.echo(
            f"switchyard: {name} reads {context} tokens, and agents' own instructions alone are 9,000 (Codex) to "
            f"20,000 (Claude Code): name a model that reads {LEAST_CONTEXT} or more with --model",
            err=True,
        )
    key = "none" if found.key is None else found.key
    _become(program, agent.launch(Service(found.client.url, key, name, context)), arguments, agent.install)


def _become(program: str, launch: Launch, arguments: tuple[str, ...], install: str) -> NoReturn:
    """Go on as the client, so that the terminal and its signals are its own; one line where it cannot run."""
    environment = {name: value for name, value in os.environ.items() if name not in launch.without}
    try:
        os.execve(program, [*launch.command, *arguments], environment | launch.variables)  # noqa: S606  as asked for
    except OSError as failure:
        why = failure.strerror or type(failure).__name__
        leave(Exit.NO_CLIENT, f"{program} cannot be run ({why}); install it again with: {install}")


def _spelt(launch: Launch, arguments: tuple[str, ...]) -> str:
    """As a shell would run it."""
    removed = [word for name in launch.without for word in ("-u", name)]
    given = [f"{name}={shlex.quote(value)}" for name, value in launch.variables.items()]
    return " \\\n  ".join([" ".join(["env", *removed]), *given, shlex.join([*launch.command, *arguments])])


def _context(found: Reach, model: str) -> int | None:
    """The tokens that the model holds, as the service says, or else its files on this machine."""
    from app.cli.look import disk  # noqa: PLC0415  it knows the hub, which takes long to import
    from app.errors import SwitchyardError  # noqa: PLC0415

    with suppress(Away, Refused):
        length = found.client.ask("GET", f"/v1/models/{quote(model, safe='/')}", ModelCard).context_length
        if length is not None:
            return length
    try:
        facts = disk.facts(found.settings, model)
    except SwitchyardError:
        return None
    return None if facts is None else facts.context_length
