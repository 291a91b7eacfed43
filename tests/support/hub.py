"""A small Hugging Face hub on the loopback, for the real huggingface_hub client to talk to.

::

    with LocalHub() as hub:
        hub.add("org/model", directory)
        hub.faults["model.safetensors"] = Faults(cut_after=1000, times=3)
        ...                     # HF_ENDPOINT=hub.url, or Hub(endpoint=hub.url)
        assert hub.count("model.safetensors") == 4

Fault names are file names, ``"info"`` for the description of a repo, or ``"*"`` for everything.
"""

import hashlib
from http.server import ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any, Self

from tests.support.hub_handler import Handler
from tests.support.hub_store import INFO, LARGE, Faults, Store, StoredFile

__all__ = ["INFO", "Faults", "LocalHub"]


class LocalHub(Store):
    """Repos with one commit each at ``main``, which :meth:`add` replaces. Use as a context manager."""

    def __init__(self) -> None:
        super().__init__()
        hub = self

        class Answering(Handler):
            def __init__(self, *args: Any) -> None:
                self.hub = hub
                super().__init__(*args)

        self._server = _Server(("127.0.0.1", 0), Answering)
        self._thread = Thread(target=self._server.serve_forever, args=(0.02,), daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def close(self) -> None:
        """Stop listening: what connects from now on is refused."""
        self.closing.set()
        self._server.shutdown()
        self._server.server_close()

    def add(self, repo: str, files: Path | dict[str, bytes]) -> str:
        """Store a directory, or names and contents, as the repo's next commit, and return that commit."""
        if isinstance(files, Path):
            files = {
                path.relative_to(files).as_posix(): path.read_bytes() for path in files.rglob("*") if path.is_file()
            }
        stored = {name: StoredFile(data, name.endswith(LARGE)) for name, data in files.items()}
        content = "".join(f"{name}:{file.etag}\n" for name, file in sorted(stored.items()))
        commit = hashlib.sha1(f"{repo}\n{content}".encode(), usedforsecurity=False).hexdigest()
        self.repos[repo], self.commits[repo] = stored, commit
        return commit

    def count(self, name: str, method: str = "GET") -> int:
        """How often a file, or ``"info"``, was asked for."""
        return self.requests[method, name]


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients that leave are part of the tests."""
