"""What the documents tell to type: spelt as the programs know it, and run by a test or listed as not run."""

import re
import shlex
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import click
import pytest

from app.cli.root import COMMANDS, switchyard
from app.settings.load import load
from benchmarks.__main__ import CASES, ON_DEMAND, is_table

ROOT = Path(__file__).parents[1]
PAGES = {
    str(path.relative_to(ROOT)): path.read_text()
    for path in sorted([*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])
}
OURS = {"switchyard", "./docker-free-run.sh", "switchyard/bin/switchyard"}
SCRIPTS = {"test", "check", "coverage", "fix", "bench", "help"}
"""What ``docker-free-run.sh`` does itself; all else it hands to switchyard."""
SHELL = {"cd", "cp", "echo", "export"}
"""What stands around a command."""
RUN = {
    ("README.md", "curl"): "contract/test_readme.py",
    ("docs/clients/curl.md", "curl"): "contract/test_recipes.py",
    ("docs/clients/embeddings.md", "curl"): "contract/test_embedding_clients.py",
    ("docs/clients/embeddings.md", "llm"): "contract/test_embedding_clients.py",
    ("docs/clients/llm.md", "llm"): "contract/test_recipes.py",
    ("docs/replicas.md", "haproxy"): "test_replicas.py",
    ("README.md", "python"): "contract/test_readme.py",
    ("docs/quickstart.md", "python"): "contract/test_readme.py",
    ("docs/structured-output.md", "python"): "contract/test_readme.py",
    ("docs/api.md", "python"): "contract/test_docs.py",
    ("docs/clients/embeddings.md", "python"): "contract/test_embedding_clients.py",
} | {
    (f"docs/clients/{page}.md", language): "contract/test_recipes.py"
    for language, pages in {
        "python": "openai-python rest langchain llamaindex litellm instructor pydantic-ai haystack",
        "js": "openai-node vercel-ai-sdk",
    }.items()
    for page in pages.split()
}
"""By page and program, the module of tests that runs it as it stands on the page."""


def blocks(text: str, *languages: str) -> list[str]:
    return re.findall(rf"^```(?:{'|'.join(languages)})\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)


def typed(block: str) -> Iterator[list[str]]:
    """The words of each program that a block of shell starts, without the variables before them."""
    pending = ""
    for line in block.replace("\\\n", " ").splitlines():
        pending += line + "\n"
        try:
            words = shlex.split(pending, comments=True)
        except ValueError:  # a quotation goes on in the next line
            continue
        pending = ""
        for part in re.split(r"\0(?:\||&&)\0", "\0".join(words)):
            program = part.split("\0")
            while program and re.fullmatch(r"[A-Z_]+=.*", program[0]):
                program = program[1:]
            if program and program[0]:
                yield program
    assert not pending, pending


TYPED = [
    (page, program) for page, text in PAGES.items() for block in blocks(text, "sh", "bash") for program in typed(block)
]
FOREIGN = sorted({(page, Path(words[0]).name) for page, words in TYPED if words[0] not in OURS | SHELL})


def not_run() -> list[str]:
    """What docs/README.md lists as not run, word for word."""
    section = PAGES["docs/README.md"].partition("not run by tests\n")[2]
    assert section
    return re.findall(r"`([^`]+)`", section)


def check(words: list[str]) -> None:
    """Whether ``switchyard WORDS`` is a command with such options and as many arguments."""
    command: click.Command = switchyard
    context = click.Context(switchyard, info_name="switchyard")
    while isinstance(command, click.Group):
        name, *words = words or ["serve"]
        if command is switchyard:
            switchyard.load(name)
        found = command.get_command(context, name)
        assert found is not None, f"there is no command {name}"
        command = found
    command.make_context(command.name, words, parent=context)


def test_blocks_of_shell_are_read_word_by_word() -> None:
    text = "A=1 B='x y' one \\\n  --two 'a\nb' # three\ngit diff | four && five\n"
    assert list(typed(text)) == [["one", "--two", "a\nb"], ["git", "diff"], ["four"], ["five"]]
    assert len(TYPED) > 50
    assert len(FOREIGN) > 10


@pytest.mark.parametrize(("page", "words"), [it for it in TYPED if it[1][0] in OURS], ids=lambda it: str(it)[:60])
def test_our_own_commands_are_spelt_as_the_command_line_knows_them(
    page: str, words: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in words:
        if name.endswith((".toml", ".pem")):
            (tmp_path / name).touch()
    monkeypatch.chdir(tmp_path)
    _, *rest = words
    if words[0] != "./docker-free-run.sh" or (rest and rest[0] not in SCRIPTS):
        check(rest)
    for name in rest[1:] if rest[:1] == ["bench"] else ():
        assert not re.fullmatch("[a-z_]+(:.*)?", name) or is_table(name), f"{page}: no table is called {name}"


def test_the_help_of_the_script_names_what_it_does_itself() -> None:
    told = subprocess.run([ROOT / "docker-free-run.sh", "help"], capture_output=True, text=True, check=True).stdout
    assert {verb for verb in SCRIPTS if not re.search(rf"^  {verb}\b", told, re.MULTILINE)} == set()


@pytest.mark.parametrize("page", PAGES)
def test_commands_named_in_a_sentence_are_there(page: str) -> None:
    for program, span in re.findall(r"(?<!`)`(switchyard|\./docker-free-run\.sh) ([a-z][^`]*)`(?!`)", PAGES[page]):
        name, *rest = span.replace(",", " ").split()
        if program == "./docker-free-run.sh" and name in SCRIPTS:
            continue
        assert name in COMMANDS, f"there is no command {name}"
        switchyard.load(name)
        options = {word for it in parameters(switchyard.commands[name]) for word in (*it.opts, *it.secondary_opts)}
        asked = {word.partition("=")[0] for word in rest if re.fullmatch(r"--[a-z-]+(=.*)?", word)}
        assert asked <= options, span


def parameters(command: click.Command) -> list[click.Parameter]:
    """Of a command and of those below it."""
    below = command.commands.values() if isinstance(command, click.Group) else ()
    return [*command.params, *(it for each in below for it in parameters(each))]


@pytest.mark.parametrize(("page", "program"), FOREIGN)
def test_every_program_that_is_told_to_be_typed_is_run_or_listed_as_not_run(page: str, program: str) -> None:
    listed = {entry.split()[0] for entry in not_run()}
    assert ((page, program) in RUN) != (program in listed), "either a test runs it or docs/README.md lists it"


@pytest.mark.parametrize("page", [page for page, text in PAGES.items() if blocks(text, "python", "js")])
def test_every_example_in_a_language_is_run(page: str) -> None:
    for language in ("python", "js"):
        assert ((page, language) in RUN) == bool(blocks(PAGES[page], language)), language


@pytest.mark.parametrize(("page", "program"), RUN)
def test_what_is_said_to_be_run_is_on_its_page_and_its_tests_read_the_page(page: str, program: str) -> None:
    on_page = {words[0] for found, words in TYPED if found == page}
    assert program in on_page or blocks(PAGES[page], program)
    assert Path(page).stem in (ROOT / "tests" / RUN[page, program]).read_text()


def test_what_is_listed_as_not_run_is_told_somewhere() -> None:
    told = "\n".join(text for page, text in PAGES.items() if page != "docs/README.md")
    assert [entry for entry in not_run() if entry not in told] == []


@pytest.mark.parametrize(
    ("page", "block"),
    [
        (page, block)
        for page, text in PAGES.items()
        for block in blocks(text, "toml")
        if page != "docs/clients/codex.md"  # Codex's own
    ],
    ids=lambda it: str(it)[:40],
)
def test_every_file_of_settings_that_is_shown_is_read(
    page: str, block: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "models").mkdir()
    for hosts in blocks(PAGES[page], "json"):
        (tmp_path / "hosts.json").write_text(hosts)
    models = "models" in tomllib.loads(block)
    (tmp_path / "my.toml").write_text("" if models else block)
    (tmp_path / "models.toml").write_text(block if models else "")
    found = load({}, {}, tmp_path / "my.toml", here=tmp_path).settings
    assert bool(found.models) == models, page


def test_the_page_on_speed_lists_every_table_of_the_benchmarks() -> None:
    page = PAGES["docs/performance.md"]
    table = page.partition("| name | what is measured |")[2].partition("\n\n")[0]
    listed = re.findall(r"^\| `([a-z_0-9]+)`", table, re.MULTILINE)
    assert len(listed) == len(set(listed))
    assert set(listed) == {*CASES, *ON_DEMAND}
