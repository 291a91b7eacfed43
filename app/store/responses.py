"""The store of responses: one table of SQLite, in memory or in a file that survives the service.

A response points to the one before it, so a conversation is a chain and each turn is held once. What goes first is the
response that was not used for longest and that no other one needs; whoever uses a response uses those before it. A
response that is deleted while others need it can no longer be asked for, and goes with the last of them.
"""

import asyncio
import sqlite3
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from time import time
from typing import TypeVar

from msgspec import Struct

from app.errors import ResponseNotFound
from app.settings.problem import SettingsProblem
from app.store.ids import made_by, response_id, store_id

LONGEST_CHAIN = 10_000
"""Turns of one conversation that are read."""
ROW_BYTES = 512
"""What a response takes beside its texts, about."""
FORMAT = 1
"""Of the tables, as ``user_version`` of the file."""
SCHEMA = f"""
PRAGMA user_version = {FORMAT};
CREATE TABLE IF NOT EXISTS responses (
    id TEXT PRIMARY KEY, owner BLOB NOT NULL, previous TEXT, bytes INTEGER NOT NULL, used REAL NOT NULL,
    deleted INTEGER NOT NULL DEFAULT 0, input BLOB NOT NULL, body BLOB NOT NULL);
CREATE INDEX IF NOT EXISTS by_use ON responses (used);
CREATE INDEX IF NOT EXISTS by_previous ON responses (previous);
CREATE INDEX IF NOT EXISTS by_deletion ON responses (deleted) WHERE deleted;
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value);
CREATE TRIGGER IF NOT EXISTS added AFTER INSERT ON responses BEGIN
    UPDATE facts SET value = value + NEW.bytes WHERE name = 'bytes'; END;
CREATE TRIGGER IF NOT EXISTS removed AFTER DELETE ON responses BEGIN
    UPDATE facts SET value = value - OLD.bytes WHERE name = 'bytes'; END;
INSERT OR IGNORE INTO facts VALUES ('bytes', 0);
"""
CHAIN = """
WITH RECURSIVE chain (id, previous, depth) AS (
    SELECT id, previous, 0 FROM responses WHERE id = :id AND owner = :owner AND NOT deleted AND used >= :since
    UNION ALL SELECT it.id, it.previous, depth + 1 FROM responses it
    JOIN chain ON it.id = chain.previous AND it.owner = :owner WHERE depth < :longest)
"""
FOUND = (
    f"{CHAIN} SELECT it.id, it.previous, it.input, it.body FROM chain JOIN responses it USING (id) ORDER BY depth DESC"
)
SIZE = f"{CHAIN} SELECT count(*), sum(bytes) FROM chain JOIN responses USING (id)"
USE = f"{CHAIN} UPDATE responses SET used = :now WHERE id IN (SELECT id FROM chain)"
FREE = "NOT EXISTS (SELECT 1 FROM responses later WHERE later.previous = responses.id)"
LEAST_USED = f"DELETE FROM responses WHERE id = (SELECT id FROM responses WHERE {FREE} ORDER BY used LIMIT 1)"
TOO_OLD = f"DELETE FROM responses WHERE used < :since AND {FREE}"
DELETED = f"DELETE FROM responses WHERE deleted AND {FREE}"
DELETE = "UPDATE responses SET deleted = 1 WHERE id = :id AND owner = :owner AND NOT deleted AND used >= :since"

T = TypeVar("T")


class Kept(Struct, frozen=True):
    """A response as it is kept: ``input`` are its own input items as a JSON array, ``body`` the answer as JSON."""

    id: str
    previous: str | None
    input: bytes
    body: bytes


class ResponseStore:
    """Holds at most ``nbytes``, none longer than ``seconds`` after its last use. Without bytes nothing is kept.

    Its thread is its own, so that the event loop never waits for a disk. ``owner`` is whoever may see a response again.
    Several services of one machine may share ``file``; then ``id`` is the same for all of them. ``mark`` is the ``id``
    that somebody has chosen.
    """

    def __init__(
        self,
        nbytes: int,
        seconds: float,
        file: Path | None = None,
        clock: Callable[[], float] = time,
        mark: str | None = None,
    ) -> None:
        """Raises :class:`SettingsProblem` for a file that is no store."""
        self._nbytes = nbytes
        self._seconds = seconds
        self._clock = clock
        self._thread = ThreadPoolExecutor(1, "responses")
        try:
            self._base = _opened(file)
        except (sqlite3.Error, OSError) as failure:
            raise SettingsProblem(
                f"response_file: {file} is no store of responses ({failure}); name another file, or remove it"
            ) from None
        weakref.finalize(self, self._base.close)
        self.id = str(self._fact("id")) if mark is None else mark

    @property
    def keeps(self) -> bool:
        """Whether anything is kept at all."""
        return self._nbytes > 0

    def new_id(self) -> str:
        """An id for a response that is being made."""
        return response_id(self.id)

    async def put(self, owner: bytes, kept: Kept) -> bool:
        """Keep a response, and let go of what is too old or too much; False if it is too large to be kept."""
        return await self._do(lambda: self._put(owner, kept))

    async def get(self, owner: bytes, response: str) -> Kept:
        """One response. Raises :class:`ResponseNotFound`."""
        return (await self.chain(owner, response))[-1]

    async def chain(self, owner: bytes, response: str) -> list[Kept]:
        """A response after all that came before it, oldest first. Raises :class:`ResponseNotFound`."""
        found = await self._do(lambda: self._chain(owner, response))
        if not found:
            raise self._missing(response)
        return found

    async def delete(self, owner: bytes, response: str) -> None:
        """Forget a response. Raises :class:`ResponseNotFound`."""
        if not await self._do(lambda: self._delete(owner, response)):
            raise self._missing(response)

    async def close(self) -> None:
        """Write what is to be written."""
        await self._do(self._base.close)
        self._thread.shutdown()

    async def _do(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    def _put(self, owner: bytes, kept: Kept) -> bool:
        size = len(kept.input) + len(kept.body) + ROW_BYTES
        with self._base:
            self._base.execute("BEGIN IMMEDIATE")
            self._sweep()
            if kept.previous is not None:
                before = self._asked(owner, kept.previous) | {"since": 0.0}
                turns, held = self._base.execute(SIZE, before).fetchone()
                if not turns or turns >= LONGEST_CHAIN:
                    return False
                size_of_all = size + int(held)
                self._base.execute(USE, before)
            else:
                size_of_all = size
            if size_of_all > self._nbytes:
                return False
            while int(self._fact("bytes")) + size > self._nbytes and self._base.execute(LEAST_USED).rowcount:
                pass
            self._base.execute(
                "INSERT INTO responses (id, owner, previous, bytes, used, input, body) VALUES (?, ?, ?, ?, ?, ?, ?)",
                (kept.id, owner, kept.previous, size, self._clock(), kept.input, kept.body),
            )
        return True

    def _chain(self, owner: bytes, response: str) -> list[Kept]:
        asked = self._asked(owner, response)
        with self._base:
            self._base.execute("BEGIN IMMEDIATE")
            found = [Kept(*row) for row in self._base.execute(FOUND, asked)]
            self._base.execute(USE, asked)
        return found

    def _delete(self, owner: bytes, response: str) -> bool:
        with self._base:
            self._base.execute("BEGIN IMMEDIATE")
            found = self._base.execute(DELETE, self._asked(owner, response)).rowcount
            self._sweep()
        return found > 0

    def _asked(self, owner: bytes, response: str) -> dict[str, bytes | str | float]:
        now = self._clock()
        return {
            "id": response, "owner": owner, "now": now, "since": now - self._seconds, "longest": LONGEST_CHAIN
        }  # fmt: skip

    def _sweep(self) -> None:
        """Let go of what is too old or deleted, and then of what only that needed."""
        since = {"since": self._clock() - self._seconds}
        while self._base.execute(TOO_OLD, since).rowcount or self._base.execute(DELETED).rowcount:
            pass

    def _fact(self, name: str) -> int | str:
        value: int | str = self._base.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()[0]
        return value

    def _missing(self, response: str) -> ResponseNotFound:
        store = made_by(response)
        if not self.keeps:
            return ResponseNotFound("Responses are not kept here: the setting response_store is 0.")
        if store is not None and store != self.id:
            return ResponseNotFound(
                f"Response '{response}' was made by another service, or by this one before it was started again: "
                "services that share response_file know each other's responses, and keep them."
            )
        return ResponseNotFound(
            f"There is no response '{response}': it was never kept (store: false), was deleted, has made room for "
            "others, or was in the memory of a service that has been started again. Send the whole conversation."
        )


def _opened(file: Path | None) -> sqlite3.Connection:
    """A connection to the tables, which are made where there are none. Only the file's owner may read it."""
    if file is not None:
        file.touch(0o600)
    base = sqlite3.connect(":memory:" if file is None else file, check_same_thread=False, timeout=10)
    base.isolation_level = None
    (written,) = base.execute("PRAGMA user_version").fetchone()
    if written not in {0, FORMAT}:
        raise sqlite3.DatabaseError(f"its format is {written}, this version's {FORMAT}")
    base.executescript("PRAGMA journal_mode = WAL; PRAGMA synchronous = NORMAL; PRAGMA secure_delete = ON;")
    base.executescript(SCHEMA)
    base.execute("INSERT OR IGNORE INTO facts VALUES ('id', ?)", (store_id(),))
    return base
