"""What a model's process does before it is asked for anything: each in a Python of its own."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import app

LATE = """
import json, logging, sys
from app.engine.host.logs import configure_late
configure_late({level!r}, "json")
logging.getLogger("some.library").debug("chatter")
before = "structlog" in sys.modules
logging.getLogger("some.library").info("what libraries say")
logging.getLogger("app").log({severity}, "said %d", 1)
logging.getLogger("app").error("said %d", 2)
print(json.dumps([before, "structlog" in sys.modules]))
"""
NAMES = """
import json, sys
from pathlib import Path
sys.modules["torch"] = None
import transformers
from transformers.utils import import_utils
from app.engine.host.imports import _models_listed_once
known = all(hasattr(import_utils, it) for it in ("create_import_structure_from_path", "fetch__all__"))
file = str(Path(transformers.__file__).parent / "models" / "__init__.py")
listed, opened = getattr(import_utils.define_import_structure, "__wrapped__", None), []
if known and listed is not None:
    original = import_utils.fetch__all__
    import_utils.fetch__all__ = lambda text: opened.append(1) or original(text)
    with _models_listed_once(transformers):
        once = listed(file)
    reads = len(opened)
    print(json.dumps([once == listed(file), reads]))
else:
    print("null")
"""
KEEP = """
import asyncio, compileall, json, os
from importlib.util import cache_from_source
from pathlib import Path
import app
from app.engine.client.bytecode import is_missing, keep_bytecode
before = is_missing()
asyncio.run(keep_bytecode())
after = is_missing()
source = Path(app.__file__).with_name("engine") / "mailbox.py"
kept = Path(cache_from_source(source))
os.utime(kept, (0, 0))  # what counts is what it says itself
older = is_missing()
kept.write_bytes(kept.read_bytes()[:9])
cut = is_missing()
compileall.compile_file(source, quiet=2)
again = is_missing()
source.touch()
print(json.dumps([before, after, older, cut, again, is_missing()]))
"""
NONE = """
import asyncio, json
from app.engine.client.bytecode import is_missing, keep_bytecode
asyncio.run(keep_bytecode())
print(json.dumps(is_missing()))
"""


def run(program: str, **variables: str) -> tuple[Any, list[str]]:
    """What it printed, and the lines of its log."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | variables
    done = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, check=True, env=environment, timeout=120
    )
    return json.loads(done.stdout), done.stderr.splitlines()


@pytest.mark.parametrize(
    ("level", "severity", "expected"),
    [("info", 20, ["said 2"]), ("info", 30, ["said 1", "said 2"]), ("error", 30, ["said 2"])],
)
def test_logging_is_configured_with_the_first_record(level: str, severity: int, expected: list[str]) -> None:
    (before, after), log = run(LATE.format(level=level, severity=severity))
    assert (before, after) == (False, True)
    assert [json.loads(line)["event"] for line in log] == expected


def test_debugging_shows_what_libraries_say() -> None:
    _, log = run(LATE.format(level="debug", severity=20))
    assert [json.loads(line)["event"] for line in log] == ["chatter", "what libraries say", "said 1", "said 2"]


def test_transformers_reads_the_files_of_its_models_once() -> None:
    found, _ = run(NAMES)
    if found is None:
        pytest.skip("this version of transformers lists its models in another way")
    assert found == [True, 0]


def first(folder: Path) -> str:
    """A path that leads there before anywhere else; libraries may lie on it too."""
    return os.pathsep.join(filter(None, (str(folder), os.environ.get("PYTHONPATH"))))


def test_bytecode_that_processes_may_not_write_is_made_for_them(tmp_path: Path) -> None:
    shutil.copytree(Path(app.__file__).parent, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    assert run(KEEP, PYTHONPATH=first(tmp_path))[0] == [True, False, False, True, False, True]
    kept = {it.name.split(".")[0] for it in (tmp_path / "app" / "engine").rglob("*.pyc")}
    assert kept == {it.stem for it in (tmp_path / "app" / "engine").rglob("*.py")}


def test_where_python_is_to_write_none_none_is_made(tmp_path: Path) -> None:
    shutil.copytree(Path(app.__file__).parent, tmp_path / "app", ignore=shutil.ignore_patterns("__pycache__"))
    assert run(NONE, PYTHONPATH=first(tmp_path), PYTHONDONTWRITEBYTECODE="1")[0] is False
    assert not list(tmp_path.rglob("*.pyc"))
