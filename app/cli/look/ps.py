"""``switchyard ps``: what is in memory or on its way there, once or live."""

import sys
from typing import Any

import msgspec
import rich_click as click
from msgspec import UNSET, structs

from app.cli.client import Client, errors_reported
from app.cli.reach import json_option, reach, reaching
from app.cli.words import STATES, size, span, table
from app.schemas.admin import AdminEvent, AdminMemory, AdminModel

IDLE = {"absent", "on_disk"}


@click.command()
@click.option("--watch", is_flag=True, help="Stay, and show every change; Ctrl-C ends it.")
@reaching
@json_option
def ps(url: str | None, config: str | None, *, watch: bool, as_json: bool) -> None:
    """Show the models in memory, who uses them, and what the memory budget is used for."""
    client = reach(url, config).client
    with errors_reported():
        if watch:
            _watch(client, as_json=as_json)
        else:
            event = next(client.stream("GET", "/admin/events", AdminEvent))
            click.echo(_json(event) if as_json else picture(event))


def picture(event: AdminEvent) -> str:
    """The whole state as lines of text."""
    models = () if event.models is UNSET else event.models
    rows = [_row(model) for model in models if model.state not in IDLE or model.queued]
    head = ("MODEL", "STATE", "MEMORY", "KV", "IN USE", "WAITING", "PID", "PROCESS", "LOST", "UNLOADED IN")
    parts = [table(head, rows)]
    if not rows:
        parts = ["No model is in memory."]
    if event.memory is not UNSET:
        parts.append(_memory(event.memory))
    return "\n\n".join(parts)


def _row(model: AdminModel) -> tuple[str, ...]:
    state = STATES[model.state] + (", pinned" if model.pinned else "")
    if model.download is not None and model.download.total:
        state += f" {100 * model.download.done // model.download.total} %"
    return (
        model.id,
        state,
        size(model.nbytes),
        size(model.kv_bytes),
        str(model.leases or "-"),
        str(model.queued or "-"),
        ", ".join(str(rank.pid) for rank in model.ranks) or str(model.pid or "-"),
        size(model.process) if model.pid else "-",
        str(model.losses or "-"),
        span(model.expires_in),
    )


def _memory(memory: AdminMemory) -> str:
    parts = {
        "weights": memory.weights,
        "KV": memory.kv,
        "scratch": memory.scratch,
        "processes": memory.processes,
        "prefix caches": memory.prefix_caches,
    }
    used = sum(parts.values())
    shown = ", ".join(f"{name} {size(nbytes)}" for name, nbytes in parts.items())
    return f"memory: {size(used)} of {size(memory.limit)} ({shown}); process {size(memory.process)}" + (
        f"; {size(memory.disk_cache)} of prefixes on disk" if memory.disk_cache else ""
    )


def _watch(client: Client, *, as_json: bool) -> None:
    """Every change as it comes: drawn over the last one on a terminal, else one below the other."""
    state = AdminEvent()
    events = client.stream("GET", "/admin/events", AdminEvent)
    if as_json or not sys.stdout.isatty():
        for event in events:
            state = merged(state, event)
            click.echo(_json(event) if as_json else picture(state) + "\n")
        return
    from rich.live import Live  # noqa: PLC0415  slow to import
    from rich.text import Text  # noqa: PLC0415

    with Live(auto_refresh=False) as screen:
        for event in events:
            state = merged(state, event)
            screen.update(Text(picture(state)), refresh=True)


def merged(state: AdminEvent, event: AdminEvent) -> AdminEvent:
    """``state`` with what ``event`` brings anew."""
    told_now: dict[str, Any] = {name: part for name, part in structs.asdict(event).items() if part is not UNSET}
    return structs.replace(state, **told_now)


def _json(event: AdminEvent) -> bytes:
    return msgspec.json.encode(event)
