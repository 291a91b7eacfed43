"""How the local hub answers: the description of a repo, its tree, and its files with ranges."""

import socket
import struct
import time
from email.message import Message
from http.server import BaseHTTPRequestHandler
from typing import Any, Literal
from urllib.parse import parse_qs, unquote, urlsplit

import msgspec

from tests.support.hub_store import INFO, LISTING, Faults, Store, StoredFile

_STEP = 16 * 1024


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: Store
    headers: Message

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        pass

    def do_GET(self) -> None:
        self._answer("GET")

    def do_HEAD(self) -> None:
        self._answer("HEAD")

    def _answer(self, method: Literal["GET", "HEAD"]) -> None:
        url = urlsplit(self.path)
        parts = [unquote(part) for part in url.path.strip("/").split("/")]
        if parts == ["api", "models"]:
            self._list(method, parse_qs(url.query))
        elif parts[:2] == ["api", "models"]:
            self._api(method, parts[2:], parse_qs(url.query))
        elif "resolve" in parts:
            at = parts.index("resolve")
            self._file(method, "/".join(parts[:at]), parts[at + 1], "/".join(parts[at + 2 :]))
        else:
            self._refuse(404, "EntryNotFound")

    def _api(self, method: str, parts: list[str], query: dict[str, list[str]]) -> None:
        action = next((word for word in ("revision", "tree") if word in parts), None)
        at = len(parts) if action is None else parts.index(action)
        repo, revision = "/".join(parts[:at]), "main" if action is None else parts[at + 1]
        fault = self._begin(method, INFO)
        if fault is None or not self._known(repo, revision):
            return
        files = self.hub.repos[repo].items()
        content: Any
        if action == "tree":
            content = [_entry(name, file) for name, file in files]
        else:
            detailed = "blobs" in query and not self.hub.plain_listing
            siblings = [self._sibling(name, file) if detailed else {"rfilename": name} for name, file in files]
            content = {"id": repo, "modelId": repo, "sha": self.hub.commits[repo], "siblings": siblings}
        self._send(INFO, msgspec.json.encode(content), fault, {"Content-Type": "application/json"})

    def _list(self, method: str, query: dict[str, list[str]]) -> None:
        """As the hub does: every repository of which any word is a part of the name, as many as are asked for."""
        fault = self._begin(method, LISTING)
        if fault is None:
            return
        words = query["search"][0].lower().split()
        found = [repo for repo in self.hub.repos if all(word in repo.lower() for word in words)]
        content = [
            {"id": repo, "downloads": len(found) - at, "gated": False}
            | ({"safetensors": {"parameters": {"BF16": 1000, "U32": 10}}} if "safetensors" in query["expand"] else {})
            for at, repo in enumerate(found)
        ]
        listed = msgspec.json.encode(content[: int(query["limit"][0])])
        self._send(LISTING, listed, fault, {"Content-Type": "application/json"})

    def _sibling(self, name: str, file: StoredFile) -> dict[str, Any]:
        fault = self.hub.faults.get(name, Faults())
        size = len(file.data) if fault.promise is None else fault.promise
        sibling: dict[str, Any] = {"rfilename": name, "size": size, "blobId": file.blob_id}
        if file.large:
            sibling["lfs"] = {"sha256": file.sha256, "size": size, "pointerSize": 134}
        return sibling

    def _file(self, method: str, repo: str, revision: str, name: str) -> None:
        fault = self._begin(method, name)
        if fault is None or not self._known(repo, revision):
            return
        file = self.hub.repos[repo].get(name)
        if file is None:
            self._refuse(404, "EntryNotFound")
            return
        headers = {"X-Repo-Commit": self.hub.commits[repo], "ETag": f'"{file.etag}"', "Accept-Ranges": "bytes"}
        if file.large:
            headers |= {"X-Linked-Etag": f'"{file.etag}"', "X-Linked-Size": str(len(file.data))}
        self._send(name, file.data, fault, headers)

    def _begin(self, method: str, name: str) -> Faults | None:
        """Count a request and let its fault answer it, if it is one that answers."""
        with self.hub.lock:
            self.hub.requests[method, name] += 1
        fault = self.hub.take_fault(name)
        if fault.hang:
            self.hub.closing.wait()
            self.close_connection = True
            return None
        if fault.status is not None:
            self._refuse(fault.status, fault.error_code, fault)
            return None
        return fault

    def _known(self, repo: str, revision: str) -> bool:
        token = self.headers.get("Authorization", "").removeprefix("Bearer ")
        if self.hub.tokens and token not in self.hub.tokens:
            self._refuse(401, "GatedRepo")
        elif repo not in self.hub.repos:
            self._refuse(404, "RepoNotFound")
        elif revision not in {"main", self.hub.commits[repo]}:
            self._refuse(404, "RevisionNotFound")
        else:
            return True
        return False

    def _refuse(self, status: int, code: str | None, fault: Faults | None = None) -> None:
        self.send_response(status)
        if code is not None:
            self.send_header("X-Error-Code", code)
        if fault is not None and fault.error_message is not None:
            self.send_header("X-Error-Message", fault.error_message)
        if fault is not None and fault.retry_after is not None:
            self.send_header("Retry-After", str(fault.retry_after))
        self.send_header("Content-Length", "0")
        self.end_headers()

    def _send(self, name: str, data: bytes, fault: Faults, headers: dict[str, str]) -> None:
        data = data if fault.body is None else fault.body
        start, end = self._range(len(data)) if not fault.ignore_range else (0, len(data))
        if start > len(data) or (start == len(data) and start > 0):
            self._refuse(416, None)
            return
        partial = (start, end) != (0, len(data))
        self.send_response(206 if partial else 200)
        if partial:
            self.send_header("Content-Range", f"bytes {start}-{end - 1}/{len(data)}")
        for key, value in ({"Content-Length": str(end - start)} | headers).items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self._send_body(name, data[start:end], fault)

    def _range(self, size: int) -> tuple[int, int]:
        wanted = self.headers.get("Range")
        if wanted is None:
            return 0, size
        first, last = wanted.removeprefix("bytes=").split("-")
        return int(first), min(int(last) + 1, size) if last else size

    def _send_body(self, name: str, body: bytes, fault: Faults) -> None:
        if fault.spoil:
            body = bytes([body[0] ^ 0xFF]) + body[1:]
        stops = [stop for stop in (fault.cut_after, fault.reset_after, fault.stall_after) if stop is not None]
        limit = min([len(body), *stops])
        step = _STEP if fault.bytes_per_second is None else max(1, fault.bytes_per_second // 50)
        for at in range(0, limit, step):
            piece = body[at : min(at + step, limit)]
            self.wfile.write(piece)
            with self.hub.lock:
                self.hub.sent[name] += len(piece)
            if fault.bytes_per_second is not None:
                time.sleep(len(piece) / fault.bytes_per_second)
        if limit == len(body):
            return
        self.close_connection = True
        if fault.stall_after is not None:
            self.hub.closing.wait()
        if fault.reset_after is not None:
            time.sleep(0.05)  # lets the client read what was sent: a reset discards what it has not
            self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self.connection.close()


def _entry(name: str, file: StoredFile) -> dict[str, Any]:
    entry: dict[str, Any] = {"type": "file", "path": name, "size": len(file.data), "oid": file.blob_id}
    if file.large:
        entry["lfs"] = {"oid": file.sha256, "size": len(file.data), "pointerSize": 134}
    return entry
