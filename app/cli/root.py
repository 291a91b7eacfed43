"""The command group: what every command is called and does, each one's module imported when it is run."""

from importlib import import_module
from typing import Any, NamedTuple

import rich_click as click

from app import __version__


class Entry(NamedTuple):
    """A command: ``module:attribute`` below ``app.cli``, and the first sentence of its help."""

    where: str
    summary: str


COMMANDS = {
    "serve": Entry("run.serve:serve", "Start the service."),
    "search": Entry(
        "look.search:search",
        "Search the hub for models by words of their names: sizes, and whether they fit the memory budget.",
    ),
    "pull": Entry("look.pull:pull", "Fetch a model from the hub, or bring it up to date."),
    "list": Entry("look.models:list_", "List the models of the service, or of this machine where none runs."),
    "show": Entry("look.models:show", "Show where a model stands, what its files say, and its settings in force."),
    "ps": Entry("look.ps:ps", "Show the models in memory, who uses them, and what the memory budget is used for."),
    "load": Entry("look.models:load", "Load a model into the memory of the service, downloading it first if need be."),
    "unload": Entry("look.models:unload", "Take a model out of the memory of the service; refused while it is in use."),
    "rm": Entry("look.models:rm", "Remove a hub model, all of its revisions, from disk."),
    "chat": Entry("talk.chat:chat", "Talk with a model."),
    "complete": Entry("talk.chat:complete", "Continue a text as it stands, without a chat template."),
    "embed": Entry("talk.embed:embed", "Make vectors of texts, a line for each."),
    "launch": Entry("clients.launch:launch", "Start a coding agent on a model of this service."),
    "bench": Entry("talk.bench:bench", "Measure how fast the service answers with a model."),
    "cache": Entry("look.cache:cache", "Look at the prefixes that are kept on disk, or remove them."),
    "config": Entry("check.config:config", "Look at the settings."),
    "completion": Entry("check.completion:completion", "Print the completion script for a shell."),
    "key": Entry("check.key:key", "Make an API key, show it once, and add its hash to a key file."),
    "service": Entry(
        "system.service:service", "Have launchd or systemd run the service for the user who is logged in."
    ),
    "families": Entry(
        "check.architectures:families",
        "List the families of models that load here, by the model_type of their config.json.",
    ),
    "doctor": Entry(
        "check.doctor:doctor",
        "Look whether this machine can run the service: backend, memory, keys, port, disk, models, clients, hub.",
    ),
}


class LazyGroup(click.RichGroup):
    """Shows the help of :data:`COMMANDS` without their modules, and imports the one that is called.

    Importing them all takes longer than everything else that ``--help`` does.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        for name, entry in COMMANDS.items():
            self.add_command(click.RichCommand(name=name, short_help=entry.summary), name)

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002  click's signature
        """In the order of the table, which is that of a first use."""
        return list(self.commands)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Import the command before click looks for it."""
        self.load(args[0])
        return super().resolve_command(ctx, args)

    def load(self, name: str) -> None:
        """Put the command itself in the place that shows its help."""
        if name in COMMANDS:
            module, _, attribute = COMMANDS[name].where.partition(":")
            self.commands[name] = getattr(import_module(f"app.cli.{module}"), attribute)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="switchyard")
def switchyard() -> None:
    """Serve any MLX language model on Hugging Face to OpenAI clients, the model named per request."""
