"""The command group, and what every command shares."""

import rich_click as click

from app import __version__
from app.cli.chat import chat, complete
from app.cli.completion import completion
from app.cli.config import config
from app.cli.doctor import doctor
from app.cli.key import key
from app.cli.models import list_, load, rm, show, unload
from app.cli.ps import ps
from app.cli.pull import pull
from app.cli.serve import serve
from app.cli.service import service


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110})
@click.version_option(__version__, prog_name="switchyard")
def switchyard() -> None:
    """Serve any MLX language model on Hugging Face to OpenAI clients, the model named per request."""


for command in (
    serve,
    pull,
    list_,
    show,
    ps,
    load,
    unload,
    rm,
    chat,
    complete,
    config,
    completion,
    key,
    service,
    doctor,
):
    switchyard.add_command(command)
