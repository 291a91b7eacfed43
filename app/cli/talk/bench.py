"""``switchyard bench``: how soon and how fast a running service answers, one person or several at once."""

import sys
from collections.abc import Callable
from typing import TypeVar

import msgspec
import rich_click as click
from msgspec import Struct

from app.cli.client import errors_reported
from app.cli.reach import json_option, model_argument, reach, reaching
from app.cli.talk.trial import Answer, Trial, throughput
from app.cli.words import table

F = TypeVar("F", bound=Callable[..., object])

HEAD = ("STREAMS", "PROMPT", "TOKENS", "FIRST TOKEN", "WORST", "TOKENS/S EACH", "ALL", "PROMPT TOKENS/S")


class Figures(Struct, frozen=True):
    """What one number of streams came to: medians, tokens as the service counts them."""

    streams: int
    prompt_tokens: int
    tokens: int
    first_token_seconds: float
    worst_first_token_seconds: float
    stream_tokens_per_second: float | None
    tokens_per_second: float
    prompt_tokens_per_second: float | None

    def row(self) -> tuple[str, ...]:
        """The cells under ``HEAD``."""
        times = (f"{1000 * it:.0f} ms" for it in (self.first_token_seconds, self.worst_first_token_seconds))
        rates = (self.stream_tokens_per_second, self.tokens_per_second, self.prompt_tokens_per_second)
        shown = ("-" if it is None else f"{it:.1f}" for it in rates)
        return str(self.streams), str(self.prompt_tokens), str(self.tokens), *times, *shown


def _numbers(context: click.Context, parameter: click.Parameter, text: str) -> tuple[int, ...]:
    number = click.IntRange(min=1)
    return tuple(number(it.strip(), parameter, context) for it in text.split(","))


def _count(flag: str, default: int, text: str) -> Callable[[F], F]:
    kind = click.IntRange(min=1)
    return click.option(flag, type=kind, default=default, show_default=True, metavar="N", help=text)


@click.command()
@model_argument
@click.option(
    "--streams",
    callback=_numbers,
    default="1",
    show_default=True,
    metavar="N,...",
    help="Requests at once; several numbers are measured one after the other.",
)
@_count("--prompt-tokens", 256, "The length of each prompt, about.")
@_count("--tokens", 128, "The length of each answer.")
@_count("--rounds", 3, "How often each number of streams is measured.")
@reaching
@json_option
def bench(
    model: str,
    *,
    streams: tuple[int, ...],
    prompt_tokens: int,
    tokens: int,
    rounds: int,
    url: str | None,
    config: str | None,
    as_json: bool,
) -> None:
    """Measure how fast the service answers with a model.

    Figures are medians of the rounds, after one request that is not counted. Prompts are words drawn by chance,
    which no cache knows; answers do not end before their length. --json prints one object a line.
    """
    client = reach(url, config).client
    rows = []
    with errors_reported():
        trial = Trial(client, model, tokens)
        trial.fit(prompt_tokens)
        if sys.stderr.isatty():
            click.echo(f"{model} at {client.url}, medians of {rounds} rounds", err=True)
        for count in streams:
            figures = summary([trial.together(count) for _ in range(rounds)])
            if as_json:
                click.echo(msgspec.json.encode(figures))
            rows.append(figures.row())
    if not as_json:
        click.echo(table(HEAD, rows))


def summary(rounds: list[list[Answer]]) -> Figures:
    """Medians over rounds of the same number of streams."""
    from statistics import median  # noqa: PLC0415  slow to import

    streams, answers = len(rounds[0]), [answer for answers in rounds for answer in answers]
    prompt_tokens = round(median(it.spoken.prompt_tokens for it in answers))
    first = median(median(it.first for it in answers) for answers in rounds)
    rates = [it.rate for it in answers if it.rate is not None]
    return Figures(
        streams=streams,
        prompt_tokens=prompt_tokens,
        tokens=round(median(it.spoken.completion_tokens for it in answers)),
        first_token_seconds=first,
        worst_first_token_seconds=median(max(it.first for it in answers) for answers in rounds),
        stream_tokens_per_second=median(rates) if rates else None,
        tokens_per_second=median(throughput(answers) for answers in rounds),
        prompt_tokens_per_second=prompt_tokens / first if streams == 1 else None,
    )
