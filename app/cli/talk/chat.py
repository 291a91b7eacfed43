"""``switchyard chat`` and ``switchyard complete``."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import rich_click as click

from app.cli.client import Client, Refused, errors_reported
from app.cli.exits import Exit, leave
from app.cli.reach import json_option, model_argument, reach, reaching
from app.cli.talk.speak import sampling, speak

F = TypeVar("F", bound=Callable[..., object])

HELP = """/clear forgets what was said, /system TEXT sets the system prompt, /exit or Ctrl-D ends.
Lines between \"\"\" and \"\"\" are one message; a line that ends with \\ goes on. Ctrl-C ends an answer."""


def _sampling_options(command: F) -> F:
    command = click.option("--max-tokens", type=int, metavar="N", help="Where the answer is cut.")(command)
    return click.option("--temperature", type=float, metavar="X", help="0 takes the likeliest token.")(command)


@click.command()
@model_argument
@click.option("--system", metavar="TEXT", help="A system prompt.")
@_sampling_options
@reaching
@json_option
def chat(
    model: str,
    *,
    system: str | None,
    temperature: float | None,
    max_tokens: int | None,
    url: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Talk with a model. What comes through a pipe is one message; its answer ends the command."""
    client = reach(url, config).client
    options = sampling(temperature=temperature, max_tokens=max_tokens)
    talk = Talk(client, model, system, options)
    with errors_reported():
        if not sys.stdin.isatty():
            talk.say(sys.stdin.read().strip(), as_json=as_json)
            return
        if not client.there():
            leave(Exit.NO_SERVER, f"nothing answers at {client.url}; start the service, or name it with --url")
        click.echo(f"{model} at {client.url}. /help says what else can be typed.", err=True)
        _remember()
        while (message := _message()) is not None:
            if not talk.command(message):
                try:
                    talk.say(message, as_json=as_json)
                except Refused as failure:
                    click.echo(f"switchyard: {failure}", err=True)


@click.command()
@model_argument
@click.argument("prompt", required=False)
@_sampling_options
@reaching
@json_option
def complete(
    model: str,
    prompt: str | None,
    *,
    temperature: float | None,
    max_tokens: int | None,
    url: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Continue a text as it stands, without a chat template. Without PROMPT it is read from standard input."""
    client = reach(url, config).client
    text = sys.stdin.read() if prompt is None else prompt
    body = {"model": model, "prompt": text, **sampling(temperature=temperature, max_tokens=max_tokens)}
    with errors_reported():
        spoken = speak(client, "/v1/completions", body, quiet=as_json)
    click.echo(msgspec.json.encode(spoken) if as_json else "")


class Talk:
    """One conversation."""

    def __init__(self, client: Client, model: str, system: str | None, options: dict[str, float]) -> None:
        self._client = client
        self._body = {"model": model, **options}
        self._system = system
        self._said: list[dict[str, str]] = []

    def say(self, message: str, *, as_json: bool) -> None:
        """Send a message with all that was said before, and print the answer. A refused message is forgotten."""
        system = [{"role": "system", "content": self._system}] if self._system else []
        said = [*self._said, {"role": "user", "content": message}]
        body = {**self._body, "messages": system + said}
        spoken = speak(self._client, "/v1/chat/completions", body, quiet=as_json)
        self._said = [*said, {"role": "assistant", "content": spoken.text}] if spoken.text else self._said
        if as_json:
            click.echo(msgspec.json.encode(spoken))
            return
        click.echo("")
        if sys.stderr.isatty():
            click.secho(spoken.figures(), dim=True, err=True)

    def command(self, line: str) -> bool:
        """Do what a line with a slash says; False for any other line."""
        word, _, rest = line.partition(" ")
        match word:
            case "/exit" | "/quit" | "/bye":
                raise SystemExit(Exit.DONE)
            case "/clear":
                self._said = []
            case "/system":
                self._system = rest.strip() or None
            case "/help" | "/?":
                click.echo(HELP, err=True)
            case _:
                return False
        return True


def _message() -> str | None:
    """The next message, perhaps of several lines; None at the end."""
    try:
        line = input("> ")
        if line.strip().startswith('"""'):
            return _until_quotes(line.strip().removeprefix('"""'))
        while line.endswith("\\"):
            line = line[:-1] + "\n" + input(". ")
    except EOFError:
        click.echo("", err=True)
        return None
    except KeyboardInterrupt:
        click.echo("", err=True)
        return _message()
    return line.strip() or _message()


def _until_quotes(first: str) -> str:
    lines = [first] if first else []
    while not (lines and lines[-1].endswith('"""')):
        lines.append(input(". "))
    return "\n".join(lines).removesuffix('"""').strip()


def _remember() -> None:
    """Lines typed before, for the arrow keys; kept in a file that only this person reads."""
    import atexit  # noqa: PLC0415
    import readline  # noqa: PLC0415  prepares input()

    folder = Path(os.environ.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "switchyard"
    history = folder / "chat_history"
    try:
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        history.touch(mode=0o600)
        readline.read_history_file(history)
    except OSError:
        return
    readline.set_history_length(1000)
    atexit.register(readline.write_history_file, history)
