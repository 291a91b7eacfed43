"""JSON out of a text that comes in pieces."""

import json
import re

from app.generation.tools.source import Emit, Malformed, Source, Steps

BETWEEN = re.compile(r'[^"{}\[\]]*')
"""What stands inside an object or an array beside strings, objects and arrays."""
SCALAR = re.compile(r'[^"{}\[\],\s]*')
"""A number or a word that stands alone."""


def json_string(source: Source) -> Steps[str]:
    """Read one JSON string."""
    pieces: list[str] = []
    yield from source.expect('"')
    yield from _string(source, pieces.append)
    try:
        value: str = json.loads('"' + "".join(pieces), strict=False)
    except ValueError:
        raise Malformed from None
    return value


def json_value(source: Source, emit: Emit) -> Steps[None]:
    """Read one JSON value and hand on its text, unchanged, as it comes. Only its brackets and quotes are checked."""
    yield from source.space()
    depth = 0
    while True:
        character = yield from source.need(1)
        if character == '"':
            emit(source.take(1))
            yield from _string(source, emit)
        elif character in "{[":
            depth += 1
            emit(source.take(1))
        elif character in "}]":
            depth -= 1
            if depth < 0:
                raise Malformed
            emit(source.take(1))
        else:
            yield from _run(source, BETWEEN if depth else SCALAR, emit)
            if depth:
                continue
        if not depth:
            return


def escaped(text: str) -> str:
    """``text`` as it stands inside a JSON string; pieces of a text may be escaped one by one."""
    return json.dumps(text, ensure_ascii=False)[1:-1]


def _string(source: Source, emit: Emit) -> Steps[None]:
    """The rest of a string with its closing quote, escapes as they are written."""
    while True:
        mark = yield from source.stream(('"', "\\"), emit)
        emit(mark)
        if mark == '"':
            return
        yield from source.need(1)
        emit(source.take(1))


def _run(source: Source, pattern: re.Pattern[str], emit: Emit) -> Steps[None]:
    """As much as ``pattern`` matches, at least one character; it matches single characters."""
    taken = 0
    while True:
        rest = source.available
        found = pattern.match(rest)
        length = 0 if found is None else found.end()
        if length:
            emit(source.take(length))
            taken += length
        if length < len(rest) or source.closed:
            break
        yield
    if not taken:
        raise Malformed
