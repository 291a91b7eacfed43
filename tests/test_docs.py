"""What the documents say is so: messages are the code's own, links lead somewhere, the tables of contents are whole."""

import ast
import re
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *(ROOT / "benchmarks").glob("*.md")])


def spoken(path: Path) -> Iterator[str]:
    """The text of every string in a module, with its gaps as line ends."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.JoinedStr):
            yield "".join(str(it.value) if isinstance(it, ast.Constant) else "\n" for it in node.values)
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            yield node.value


def test_messages_in_troubleshooting_are_the_codes_own() -> None:
    said = "\0".join(text for path in (ROOT / "app").rglob("*.py") for text in spoken(path))
    rows = re.findall(
        r"^\| (?!message|---)(.+?) \| [0-9]* ?\|", (DOCS / "troubleshooting.md").read_text(), re.MULTILINE
    )
    assert len(rows) >= 25
    for row in rows:
        parts = [part.strip() for part in row.split("…") if len(part.strip()) > 3]
        assert parts
        assert [part for part in parts if part not in said] == [], row


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\((?!https?:|mailto:|#)([^)#]+)", page.read_text()):
        assert (page.parent / target).exists(), target


FILES = {str(path.relative_to(ROOT)) for name in ("app", "benchmarks", "tests") for path in (ROOT / name).rglob("*.*")}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_modules_and_folders_that_a_page_names_are_there(page: Path) -> None:
    text = page.read_text().replace("/<name>.py`", "/`")
    for name in re.findall(r"`([\w/]+\.(?:py|c|inc|js))`", text):
        assert any(f"/{file}".endswith(f"/{name}") for file in FILES), name
    for name in re.findall(r"`((?:app|api|engine|tests|benchmarks|generation|registry|schemas)/[\w/]*/)`", text):
        assert any(f"/{name}" in f"/{file}" for file in FILES), name


def test_every_threat_has_tests_that_are_there() -> None:
    rows = re.findall(r"^\| (?!threat|---)(.+?) \| .+ \| (.+) \|$", (DOCS / "security.md").read_text(), re.MULTILINE)
    assert len(rows) >= 20
    for threat, tests in rows:
        named = re.findall(r"`([\w/]+\.py)`", tests)
        assert named, threat
        assert [name for name in named if not (ROOT / "tests" / name).exists()] == []


def test_only_the_wing_of_caches_knows_the_caches_of_mlx_lm() -> None:
    knowing = {path for path in (ROOT / "app").rglob("*.py") if "mlx_lm.models.cache" in path.read_text()}
    wing = ROOT / "app" / "engine" / "mlx" / "cache"
    assert (
        "Only the modules of `cache/`, and `load/scratch.py`, know mlx-lm's cache classes"
        in (DOCS / "adr" / "engine-batch.md").read_text()
    )
    assert knowing
    assert {path for path in knowing if wing not in path.parents} == {wing.parent / "load" / "scratch.py"}


def test_the_readme_fits_on_two_screens() -> None:
    assert len((ROOT / "README.md").read_text().splitlines()) <= 120


def test_the_table_of_contents_names_every_document() -> None:
    listed = set(re.findall(r"\]\(([\w-]+\.md)\)", (DOCS / "README.md").read_text()))
    assert {path.name for path in DOCS.glob("*.md")} - {"README.md"} == listed


def test_the_wheel_carries_the_page_and_the_settings() -> None:
    patterns = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["package-data"]
    folders = {ROOT / package.replace(".", "/"): kept for package, kept in patterns.items()}
    files = {path for folder in (ROOT / "app", ROOT / "config") for path in folder.rglob("*") if path.is_file()}
    carried = {path for folder, kept in folders.items() for pattern in kept for path in folder.glob(pattern)}
    assert {path for path in files if path.suffix not in {".py", ".pyc"}} - carried == set()
