"""A running service, asked over HTTP with the standard library: nothing heavy is imported for it."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from app.cli.exits import Exit, leave

if TYPE_CHECKING:
    from http.client import HTTPConnection, HTTPResponse

CONNECT_SECONDS = 2.0

T = TypeVar("T")


class Away(Exception):
    """Nothing answers at the address."""


class Refused(Exception):
    """The service answered with a failure; the message is its own."""


class Client:
    """The service at ``url``. A fresh connection for each request, so that one may be read while another is asked."""

    def __init__(self, url: str, key: str | None) -> None:
        self.url = url.rstrip("/")
        self._headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})

    def there(self) -> bool:
        """Whether a service answers."""
        try:
            with self._answer("GET", "/health", None) as answer:
                answer.read()
        except (Away, Refused):
            return False
        return True

    def ask(self, method: str, path: str, kind: type[T], body: Any = None) -> T:
        """The answer, decoded. Raises Away or Refused."""
        with self._answer(method, path, body) as answer:
            return msgspec.json.decode(answer.read() or b"null", type=kind)

    def stream(self, method: str, path: str, kind: type[T], body: Any = None) -> Iterator[T]:
        """Each event's data, decoded, until the stream ends. Raises Away or Refused, after the first event as well."""
        with self._answer(method, path, body) as answer:
            whole = False
            for line in answer:
                if not line.startswith(b"data: "):
                    continue
                data = line[6:].strip()
                if data == b"[DONE]":
                    whole = True
                elif data.startswith(b'{"error":'):
                    raise Refused(_message(data, 500))
                else:
                    yield msgspec.json.decode(data, type=kind)
            if not whole:
                raise Refused("The service closed the connection before the answer was complete.")

    @contextmanager
    def _answer(self, method: str, path: str, body: Any) -> "Iterator[HTTPResponse]":
        connection = self._connect()
        try:
            sent = None if body is None else msgspec.json.encode(body)
            try:
                connection.request(method, urlsplit(self.url).path + path, sent, self._headers)
                answer = connection.getresponse()
            except OSError as failure:
                raise Away(f"nothing answers at {self.url}; start the service, or name it with --url") from failure
            if answer.status >= 400:
                raise Refused(_message(answer.read(), answer.status))
            yield answer
        finally:
            connection.close()

    def _connect(self) -> "HTTPConnection":
        from http.client import HTTPConnection, HTTPSConnection  # noqa: PLC0415  slow to import

        parts = urlsplit(self.url)
        kind = HTTPSConnection if parts.scheme == "https" else HTTPConnection
        connection = kind(parts.hostname or "", parts.port, timeout=CONNECT_SECONDS)
        try:
            connection.connect()
        except OSError as failure:
            raise Away(f"nothing answers at {self.url}; start the service, or name it with --url") from failure
        connection.sock.settimeout(None)  # a model may take minutes to load
        return connection


def model_path(model: str, action: str = "") -> str:
    """A model's path under ``/admin/models``."""
    return f"/admin/models/{quote(model, safe='/@')}{action and f'/{action}'}"


def settings_path(model: str) -> str:
    """Where a model's settings in force are told."""
    return f"/admin/settings/{quote(model, safe='/@')}"


@contextmanager
def errors_reported() -> Iterator[None]:
    """End the process with one line if the service is away, refuses, or the person interrupts."""
    try:
        yield
    except Away as failure:
        leave(Exit.NO_SERVER, str(failure))
    except Refused as failure:
        leave(Exit.REFUSED, str(failure))
    except KeyboardInterrupt:
        leave(Exit.INTERRUPTED, "interrupted")


def _message(body: bytes, status: int) -> str:
    try:
        return str(msgspec.json.decode(body)["error"]["message"])
    except (msgspec.DecodeError, KeyError, TypeError):
        return f"the service answered with status {status}"
