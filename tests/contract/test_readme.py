"""What the README tells people to run does what it says."""

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from app.cli.root import COMMANDS, switchyard
from tests.support.process import Service, service

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
ADDRESS = "http://127.0.0.1:8000"


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```$", README, flags=re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    with service("--offline", HF_HOME=str(tmp_path_factory.mktemp("hf"))) as made:
        yield made


def here(text: str, running: Service) -> str:
    assert ADDRESS in text
    return text.replace(ADDRESS, running.url)


def test_the_sdk_lines_answer(running: Service) -> None:
    (snippet,) = blocks("python")
    assert len(snippet.splitlines()) == 5
    told = subprocess.run(
        [sys.executable, "-c", here(snippet, running)], capture_output=True, text=True, timeout=120, check=True
    )
    assert "Paris" in told.stdout


@pytest.mark.parametrize(
    ("page", "said"), [("quickstart", "Paris"), ("structured-output", "Person(name='Anna Miller', age=34)")]
)
def test_the_programs_of_the_first_pages_print_what_they_promise(page: str, said: str, running: Service) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text()
    (program,) = re.findall(r"^```python\n(.*?)^```$", text, flags=re.MULTILINE | re.DOTALL)
    *lines, last = here(program, running).rstrip().splitlines()
    expression, shown, promised = last.partition("  # ")  # as it is seen where each line is typed
    if shown:
        assert promised == said
        last = f"print(repr({expression}))"
    told = subprocess.run(
        [sys.executable, "-c", "\n".join([*lines, last])], capture_output=True, text=True, timeout=120, check=True
    )
    assert said in told.stdout


def test_the_curl_line_answers(running: Service) -> None:
    line = next(block for block in blocks("bash") if block.startswith("curl"))
    told = subprocess.run(["/bin/bash", "-c", here(line, running)], capture_output=True, timeout=120, check=True)
    assert msgspec.json.decode(told.stdout)["choices"][0]["text"].startswith(" Paris")


def test_the_schema_line_answers_as_the_schema_says(running: Service) -> None:
    block = next(block for block in blocks("bash") if "json_schema" in block)
    line = block.partition("./docker-free-run.sh")[0]
    told = subprocess.run(["/bin/bash", "-c", here(line, running)], capture_output=True, timeout=120, check=True)
    content = msgspec.json.decode(told.stdout)["choices"][0]["message"]["content"]
    assert msgspec.json.decode(content, type=dict[str, str]).keys() == {"city", "country"}


def test_commands_with_models_of_the_hub_are_spelt_as_the_command_line_knows_them() -> None:
    """They need a public network, and are not run: their words are."""
    lines = [line.partition("#")[0].split() for block in blocks("bash") for line in block.splitlines()]
    named = [words[1:] for words in lines if words[:1] == ["./docker-free-run.sh"] and len(words) > 2]
    assert {words[0] for words in named} == {"pull", "launch", "embed"}
    for command, *rest in named:
        switchyard.load(command)
        found = switchyard.commands[command]
        found.make_context(command, [word.strip("'") for word in rest])


def test_the_commands_are_those_of_the_script() -> None:
    told = subprocess.run(
        [str(ROOT / "docker-free-run.sh"), "help"], capture_output=True, text=True, timeout=30, check=True
    ).stdout
    named = set(re.findall(r"\./docker-free-run\.sh (\w+)", README)) | {"serve", "pull", "fix", "bench"}
    assert {"test", "check", "help"} <= named
    for command in named - COMMANDS.keys():
        assert re.search(rf"^  {command}\b", told, flags=re.MULTILINE), f"help does not know {command!r}"


def test_every_link_leads_somewhere() -> None:
    targets = [target for target in re.findall(r"\]\(([^)#]+)", README) if "://" not in target]
    assert targets
    assert [target for target in targets if not (ROOT / target).exists()] == []
