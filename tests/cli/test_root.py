"""The table of commands, held against the commands themselves and against the documents."""

import re
from pathlib import Path

import pytest

from app.cli.root import COMMANDS, switchyard

PAGE = (Path(__file__).parents[2] / "docs" / "cli.md").read_text()


@pytest.mark.parametrize("name", COMMANDS)
def test_help_tells_of_a_command_what_the_command_tells_of_itself(name: str) -> None:
    switchyard.load(name)
    command = switchyard.commands[name]
    assert command.name == name
    first_sentence = re.split(r"(?<=\.)\s", " ".join(command.help.split()), maxsplit=1)[0]
    assert first_sentence == COMMANDS[name].summary


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_is_documented(name: str) -> None:
    assert re.search(rf"^\|.*`{name}[ `].*\|.*\|$", PAGE, re.MULTILINE)
