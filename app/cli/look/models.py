"""``switchyard list``, ``show``, ``load``, ``unload`` and ``rm``."""

import msgspec
import rich_click as click
from msgspec import structs

from app.cli.client import errors_reported, model_path, settings_path
from app.cli.exits import Exit, leave
from app.cli.reach import json_option, model_argument, reach, reaching
from app.cli.words import STATES, size, span, table
from app.schemas.admin import (
    AdminModel,
    AdminModels,
    AdminModelSettings,
    AdminRank,
    AdminSetting,
    AdminTogether,
    Deleted,
)


@click.command(name="list")
@reaching
@json_option
def list_(url: str | None, config: str | None, *, as_json: bool) -> None:
    """List the models of the service, or of this machine where none runs."""
    from app.cli.look import disk  # noqa: PLC0415

    found = reach(url, config)
    with errors_reported():
        models = (
            found.client.ask("GET", "/admin/models", AdminModels).data
            if found.served()
            else disk.models(found.settings)
        )
    if as_json:
        click.echo(msgspec.json.encode(AdminModels(models)))
        return
    rows = [(model.id, ", ".join(model.aliases) or "-", STATES[model.state], size(model.nbytes)) for model in models]
    click.echo(table(("MODEL", "ALIASES", "STATE", "MEMORY"), rows))


@click.command()
@model_argument
@reaching
@json_option
def show(model: str, url: str | None, config: str | None, *, as_json: bool) -> None:
    """Show where a model stands, what its files say, and its settings in force."""
    from app.cli.look import disk  # noqa: PLC0415
    from app.errors import SwitchyardError  # noqa: PLC0415

    found = reach(url, config)
    with errors_reported():
        if found.served():
            state: AdminModel | None = found.client.ask("GET", model_path(model), AdminModel)
        else:
            known = disk.models(found.settings)
            state = next((it for it in known if model in {it.id, *it.aliases}), None)
        if state is None:
            leave(Exit.REFUSED, f"there is no model {model} on this machine; 'switchyard list' shows what there is")
        settings = (
            found.client.ask("GET", settings_path(model), AdminModelSettings)
            if found.served()
            else disk.in_force(found.settings, model)
        )
    try:
        facts = disk.facts(found.settings, model) or disk.Facts()
    except SwitchyardError:
        facts = disk.Facts()  # known to the service alone
    if as_json:
        click.echo(msgspec.json.encode({**structs.asdict(state), **structs.asdict(facts), "settings": settings}))
        return
    length = facts.context_length if state.abilities.context_length is None else state.abilities.context_length
    rows = [
        ("model", state.id),
        ("aliases", ", ".join(state.aliases) or "-"),
        ("state", STATES[state.state] + (", pinned" if state.pinned else "")),
        ("in memory", size(state.nbytes)),
        ("in use by", f"{state.leases} requests, {state.queued} waiting"),
        ("unloaded in", span(state.expires_in)),
        ("architecture", facts.architecture or "-"),
        ("context", "-" if length is None else f"{length} tokens"),
        ("together", _together(state.together)),
        ("ranks", "; ".join(_rank(it) for it in state.ranks) or "-"),
        ("weights", " of ".join(it for it in (size(facts.weight_bytes), facts.quantization) if it)),
    ]
    click.echo("\n".join(f"{name:<14}{value}" for name, value in rows))
    for title, group in (("CHATS", settings.chat), ("COMPLETIONS", settings.completion), ("MODEL", settings.model)):
        if group:
            click.echo("\n" + table((title, "IN FORCE", "FROM"), [(it.name, _value(it), it.origin) for it in group]))


def _value(setting: AdminSetting) -> str:
    """A setting as people read it."""
    value = setting.value
    shown = str(value).lower() if isinstance(value, bool) else f"{value:g}" if isinstance(value, float) else str(value)
    return setting.words or shown


def _rank(rank: AdminRank) -> str:
    return f"process {rank.pid}{' on ' + rank.host if rank.host else ''}, {size(rank.resident)}"


def _together(found: AdminTogether | None) -> str:
    """What trying it at load has found."""
    if found is None:
        return "-"
    if not found.answers:
        return "nothing: prompts and answers take turns"
    able = [*(["prompts"] if found.prompts else []), "answers" if found.short else "answers to more than a few tokens"]
    shown = " and ".join(able) + ("" if found.lengths else ", a pass for each class of lengths")
    return shown + ("" if found.ahead else ", no step built ahead")


def _act(model: str, action: str, url: str | None, config: str | None, *, as_json: bool) -> None:
    found = reach(url, config)
    with errors_reported():
        state = msgspec.convert(found.client.ask("POST", model_path(model, action), object), AdminModel | None)
    if as_json:
        click.echo(msgspec.json.encode(state))
    elif state is None:
        click.echo(f"{model} is not in memory")
    else:
        memory = f", {size(state.nbytes)}" if state.nbytes else ""
        click.echo(f"{state.id} is {STATES[state.state]}{memory}")


@click.command()
@model_argument
@reaching
@json_option
def load(model: str, url: str | None, config: str | None, *, as_json: bool) -> None:
    """Load a model into the memory of the service, downloading it first if need be."""
    from app.cli.look.loading import watched  # noqa: PLC0415  rich's progress bars take long to import

    with watched(reach(url, config).client, model):
        _act(model, "load", url, config, as_json=as_json)


@click.command()
@model_argument
@reaching
@json_option
def unload(model: str, url: str | None, config: str | None, *, as_json: bool) -> None:
    """Take a model out of the memory of the service; refused while it is in use."""
    _act(model, "unload", url, config, as_json=as_json)


@click.command()
@model_argument
@reaching
@json_option
def rm(model: str, url: str | None, config: str | None, *, as_json: bool) -> None:
    """Remove a hub model, all of its revisions, from disk."""
    from app.cli.look import disk  # noqa: PLC0415
    from app.errors import SwitchyardError  # noqa: PLC0415

    found = reach(url, config)
    try:
        with errors_reported():
            deleted = (
                found.client.ask("DELETE", model_path(model), Deleted)
                if found.served()
                else Deleted(model, disk.remove(found.settings, model))
            )
    except SwitchyardError as failure:
        leave(Exit.REFUSED, failure.message)
    click.echo(msgspec.json.encode(deleted) if as_json else f"{deleted.id} is removed; {size(deleted.freed)} are free")
