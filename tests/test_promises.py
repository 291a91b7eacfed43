"""What the documents promise of the whole tree, held by looking at it."""

import ast
import re
import statistics
import subprocess
import sys
import tomllib
from importlib.metadata import packages_distributions
from itertools import pairwise
from pathlib import Path

import pytest
from msgspec import structs

from app import errors
from app.api.errors import STATUS
from app.cli.exits import Exit
from app.settings import Settings

ROOT = Path(__file__).parents[1]
SOURCES = sorted((ROOT / "app").rglob("*.py"))
CONFIGURATION = (ROOT / "docs" / "configuration.md").read_text()


def test_rooms_import_one_way() -> None:
    done = subprocess.run(
        [Path(sys.executable).with_name("lint-imports"), "--no-cache"], cwd=ROOT, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


def imported(path: Path) -> set[str]:
    """The packages that a file imports, wherever in it."""
    nodes = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.Import | ast.ImportFrom)]
    names = {alias.name for node in nodes if isinstance(node, ast.Import) for alias in node.names}
    names |= {node.module or "" for node in nodes if isinstance(node, ast.ImportFrom) and not node.level}
    return {name.partition(".")[0] for name in names}


def test_every_package_that_is_imported_is_declared() -> None:
    """What only comes with another package goes with it, too."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    declared = [*project["dependencies"], *(it for extra in project["optional-dependencies"].values() for it in extra)]
    known = {re.match(r"[\w-]+", line)[0].lower().replace("_", "-") for line in declared}
    there = packages_distributions()
    for package in set.union(*map(imported, SOURCES)) - sys.stdlib_module_names - {"app", "config"}:
        names = {name.lower().replace("_", "-") for name in there.get(package, [package])}
        assert names & known, f"{package} is imported and not declared"


@pytest.mark.parametrize("module", ["app.cli", "app.main"])
def test_importing_the_front_brings_in_nothing_heavy(module: str) -> None:
    program = (
        f"import sys, {module}; print(*{{name.partition('.')[0] for name in sys.modules}} & "
        "{'mlx', 'mlx_lm', 'transformers', 'tokenizers', 'huggingface_hub', 'llguidance', 'numpy'})"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stdout + done.stderr


def test_the_command_line_does_not_wait_for_the_web() -> None:
    program = "import sys, app.cli; print(*{'litestar', 'uvicorn', 'structlog'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stdout.strip()) == (0, ""), done.stdout + done.stderr


def test_every_setting_stands_in_default_toml_below_a_comment_and_in_the_documentation() -> None:
    lines = (ROOT / "config" / "default.toml").read_text().splitlines()
    below = {line.partition(" = ")[0]: above for above, line in pairwise(lines) if " = " in line}
    for field in structs.fields(Settings):
        if field.name != "models":
            assert below[field.name].startswith("# ")
            assert f"`{field.name}`" in CONFIGURATION
            assert f"`SWITCHYARD_{field.name.upper()}`" in CONFIGURATION


def test_every_exit_code_is_documented() -> None:
    for code in Exit:
        assert f"| {code.value} | {code.meaning} |" in (ROOT / "docs" / "cli.md").read_text()


def test_every_failure_has_a_status() -> None:
    named = {
        value
        for value in vars(errors).values()
        if isinstance(value, type) and issubclass(value, errors.SwitchyardError) and value is not errors.SwitchyardError
    }
    assert named == STATUS.keys()
    for failure in named:
        assert re.search(rf"{failure.__name__} .* {STATUS[failure]}$", errors.__doc__ or "", re.MULTILINE)


def test_no_file_and_no_function_is_too_long() -> None:
    lengths = {path: len(path.read_text().splitlines()) for path in SOURCES}
    assert {path: length for path, length in lengths.items() if length > 250} == {}
    assert statistics.median(lengths.values()) <= 100
    functions = {
        f"{path.relative_to(ROOT)} {node.name}": (node.end_lineno or 0) - node.lineno + 1
        for path in SOURCES
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
    }
    assert {name: length for name, length in functions.items() if length > 50} == {}


def test_litestar_modules_keep_their_annotations() -> None:
    for path in SOURCES:
        if path.parent.name in {"api", "schemas"}:
            assert "from __future__ import annotations" not in path.read_text(), path
            assert "TYPE_CHECKING" not in path.read_text(), path


def test_the_lock_file_knows_the_dependencies_of_pyproject() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    locked = next(
        package
        for package in tomllib.loads((ROOT / "uv.lock").read_text())["package"]
        if package["name"] == project["project"]["name"]
    )["metadata"]

    def name(text: str) -> str:
        return re.split(r"[\[<>=; ]", text)[0]

    def specifiers(text: str) -> set[str]:
        return set(re.findall(r"[<>=!~]+[\w.]+", text.partition(";")[0]))

    groups = [*project["project"]["optional-dependencies"].values(), project["project"]["dependencies"]]
    asked = {(name(text), *sorted(specifiers(text))) for group in groups for text in group}
    known = {(entry["name"], *sorted(specifiers(entry.get("specifier", "")))) for entry in locked["requires-dist"]}
    assert asked == known, "pyproject.toml has changed: run `uv lock`"
    developing = {(name(text), *sorted(specifiers(text))) for text in project["dependency-groups"]["dev"]}
    assert developing == {
        (entry["name"], *sorted(specifiers(entry.get("specifier", "")))) for entry in locked["requires-dev"]["dev"]
    }, "pyproject.toml has changed: run `uv lock`"
