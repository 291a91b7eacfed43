"""The last requests for an answer and how they ended, in memory; no prompt and no answer is kept."""

import re
from collections import OrderedDict
from time import perf_counter, time
from typing import Any

import msgspec
from msgspec import structs

from app.api.observe.record import record_of
from app.generation.events import Completed, Delta, Event, Started, Timings, ToolCallStarted
from app.observability import ASGIApp, Message, Receive, Scope, Send, request_id
from app.registry.changes import Changes
from app.schemas.admin import AdminRequest, AdminTimings, Outcome
from app.schemas.errors import ErrorBody
from app.schemas.models import ModelField

KEPT = 50
CALLS = 16
"""Names of called functions that are kept of one answer."""
CLIENT = re.compile(rb"[A-Za-z0-9._-]{1,40}(/[A-Za-z0-9._-]{1,20})?", re.ASCII)


class Note:
    """What is known of one request so far. Written by whoever learns it, within the request's own task."""

    def __init__(self, scope: Any, changes: Changes) -> None:
        self._changes = changes
        self._began = perf_counter()
        self._entry = AdminRequest(
            id=request_id(scope),
            at=time(),
            path=scope["path"],
            model=None,
            outcome="waiting",
            status=0,
            seconds=0.0,
            first_token_seconds=None,
            prompt_tokens=0,
            completion_tokens=0,
            message=None,
            client=_client(scope),
        )

    def asked(self, data: Any) -> None:
        """The decoded body."""
        if isinstance(data, ModelField):
            self._set(model=data.model)

    def see(self, event: Event) -> None:
        """What the running job tells."""
        match event:
            case Started(model=model, prompt_tokens=tokens):
                self._set(model=model, prompt_tokens=tokens, outcome="running", timings=_timings(event.timings))
            case Delta() | ToolCallStarted():
                self._piece(event)
            case Completed(usage=usage):
                self._set(
                    prompt_tokens=usage.prompt_tokens,
                    completion_tokens=usage.completion_tokens,
                    cached_tokens=usage.prompt_tokens_details.cached_tokens,
                    timings=_timings(event.timings),
                )
            case _:
                pass

    def _piece(self, event: Delta | ToolCallStarted) -> None:
        if self._entry.first_token_seconds is None:
            self._set(first_token_seconds=self._seconds())
        if isinstance(event, ToolCallStarted):
            calls = self._entry.calls
            if event.name not in calls and len(calls) < CALLS:
                self._set(calls=(*calls, event.name))

    def failed(self, body: ErrorBody) -> None:
        """A failure after the answer has begun."""
        self._set(outcome="failed", message=body.error.message)

    def end(self, status: int, refusal: bytes, *, complete: bool, made: int = 0) -> None:
        """The answer has been sent, or given up after ``made`` tokens."""
        outcome: Outcome = "answered"
        if self._entry.outcome == "failed":
            outcome = "failed"
        elif not complete or status == 499:
            outcome = "left"
        elif status >= 400:
            outcome = "failed" if status >= 500 else "refused"
            self._set(message=_message(refusal))
        made = max(made, self._entry.completion_tokens)
        self._set(outcome=outcome, status=status, seconds=self._seconds(), completion_tokens=made)

    def entry(self) -> AdminRequest:
        """The request now."""
        if self._entry.outcome in {"waiting", "running"}:
            return structs.replace(self._entry, seconds=self._seconds())
        return self._entry

    def _seconds(self) -> float:
        return round(perf_counter() - self._began, 3)

    def _set(self, **known: Any) -> None:
        self._entry = structs.replace(self._entry, **known)
        self._changes.tell()


class Journal:
    """The last ``KEPT`` requests, oldest first; one that still runs is kept as long as it does."""

    def __init__(self) -> None:
        self.changes = Changes()
        self._notes: OrderedDict[int, Note] = OrderedDict()
        self._next = 0

    def entries(self) -> tuple[AdminRequest, ...]:
        """Newest first."""
        return tuple(note.entry() for note in reversed(self._notes.values()))

    def begin(self, scope: Scope) -> Note:
        """Open a note for the request; the oldest that has ended makes room."""
        note = Note(scope, self.changes)
        self._notes[self._next] = note
        self._next += 1
        if len(self._notes) > KEPT:
            ended = (key for key, old in self._notes.items() if old.entry().status)
            self._notes.pop(next(ended, -1), None)
        scope.setdefault("state", {})["note"] = note
        self.changes.tell()
        return note


def note_of(scope: Any) -> Note:
    """The note of a running request; one that nobody reads if there is no journal."""
    note = scope.get("state", {}).get("note")
    return note if isinstance(note, Note) else Note(scope, Changes())


def journaled(app: ASGIApp, journal: Journal) -> ASGIApp:
    """``app``, with a note on every request that asks for an answer."""

    async def keep(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["method"] != "POST" or not scope["path"].startswith("/v1/"):
            await app(scope, receive, send)
            return
        note, status, refusal, complete = journal.begin(scope), 0, b"", False

        async def watch(message: Message) -> None:
            nonlocal status, refusal, complete
            if message["type"] == "http.response.start":
                status = message["status"]
            elif message["type"] == "http.response.body":
                refusal += message["body"] if status >= 400 else b""
                complete = not message.get("more_body", False)
            await send(message)

        try:
            await app(scope, receive, watch)
        finally:
            note.end(status, refusal, complete=complete, made=record_of(scope).meter.completion_tokens)

    return keep


def _client(scope: Any) -> str | None:
    """The first product of the User-Agent; a browser's is none, for it names every other one."""
    agent = next((value for name, value in scope["headers"] if name == b"user-agent"), b"")
    found = CLIENT.match(agent)
    return None if found is None or found[0].startswith(b"Mozilla/") else found[0].decode()


def _timings(timings: Timings) -> AdminTimings:
    return AdminTimings(*(round(it, 4) for it in (timings.queue, timings.load, timings.prefill, timings.decode)))


def _message(refusal: bytes) -> str | None:
    try:
        return msgspec.json.decode(refusal, type=ErrorBody).error.message
    except msgspec.DecodeError:
        return None
