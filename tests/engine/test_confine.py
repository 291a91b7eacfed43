"""What a model's process may reach once it is confined, tried in a process of its own."""

import socket
import subprocess
import sys

import pytest

from app.engine.host.confine import confine
from app.engine.host.setup import Folders

TRIAL = """
import socket, sys
from pathlib import Path
from app.engine.host.confine import confine
from app.engine.host.setup import Folders
given, kept, apart, port = sys.argv[1:]
if not confine(Folders((given,), (kept,))):
    print("not held")
    sys.exit()

def tried(what):
    try:
        what()
    except OSError as failure:
        return type(failure).__name__
    return "done"

print(tried(lambda: Path(given, "file").read_text()))
print(tried(lambda: Path(given, "new").write_text("x")))
print(tried(lambda: Path(kept, "new").write_text("x")))
print(tried(lambda: Path(apart, "file").read_text()))
print(tried(lambda: list(Path(apart).iterdir())))
print(tried(lambda: socket.create_connection(("127.0.0.1", int(port)), 2).close()))
print(tried(lambda: socket.create_server(("127.0.0.1", 0)).close()))
print(tried(lambda: __import__("json").dumps({})))
"""


def test_only_the_folders_that_are_given_and_no_connection(tmp_path_factory: pytest.TempPathFactory) -> None:
    root = tmp_path_factory.mktemp("confined")
    for name in ("given", "kept", "apart"):
        (root / name).mkdir()
        (root / name / "file").write_text("x")
    with socket.create_server(("127.0.0.1", 0)) as server:
        places = [str(root / name) for name in ("given", "kept", "apart")]
        done = subprocess.run(
            [sys.executable, "-c", TRIAL, *places, str(server.getsockname()[1])],
            capture_output=True,
            text=True,
            env={"TMPDIR": str(root / "kept"), "PYTHONPATH": ":".join(sys.path)},
        )
    told = done.stdout.split()
    if told == ["not", "held"]:
        pytest.skip("this system has no Landlock")
    denied = "PermissionError"
    assert told == ["done", denied, "done", denied, denied, denied, denied, "done"], done.stderr


def test_elsewhere_nothing_is_held(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("app.engine.host.confine.sys.platform", "darwin")
    assert confine(Folders()) is False
