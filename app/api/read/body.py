"""Request bodies, decoded once and strictly: ``"3"`` is not 3, and whatever is wrong is named.

Litestar converts a decoded body leniently. A body that is already an instance of the annotated struct passes its
conversion untouched, so :class:`StrictRequest` decodes it to that struct itself.
"""

import re
from asyncio import to_thread
from itertools import accumulate
from math import inf
from typing import Any

import msgspec
import structlog
from litestar import Request
from litestar.exceptions import InternalServerException

from app.api.observe.journal import note_of
from app.api.protect.access import caller_of
from app.api.read import peers
from app.api.read.coding import decoded
from app.errors import InvalidRequest
from app.schemas.common import GenerationFields

MAX_DEPTH = 64
MAX_VALUES = 1_000_000
"""Commas outside of strings: more than any list of token ids has that a model could take."""
STRINGS = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+(?:"|\\?\Z)', re.DOTALL)
"""Strings, the last of which may lack its end: so every byte is looked at once, whatever the bytes are."""
NO_BRACKETS = bytes(set(range(256)) - set(b"[]{}"))
STEPS = {ord("["): 1, ord("{"): 1, ord("]"): -1, ord("}"): -1}
LONE_SURROGATE = re.compile(rb"\\u[dD][89abAB][0-9a-fA-F]{2}(?!\\u[dD][c-fC-F])|\\u[dD][c-fC-F][0-9a-fA-F]{2}")
PLACE = re.compile(r" - at `(?:key in )?\$(?P<path>.*)`$", re.DOTALL)
MISSING = re.compile(r"missing required field `(?P<name>[^`]+)`")


class ClientGone(Exception):
    """The client closed the connection; nobody reads the answer."""


class StrictRequest(Request[Any, Any, Any]):
    """A request whose JSON body is decoded to the handler's ``data`` type, without coercion."""

    async def body(self) -> bytes:
        """As it was before it was compressed. Raises :class:`ClientGone` if the connection ends before it does."""
        try:
            body = await super().body()
        except InternalServerException as error:
            raise ClientGone from error
        coding = ", ".join(self.headers.getall("content-encoding", []))
        if not coding:
            return body
        return await to_thread(decoded, body, coding, self.route_handler.resolve_request_max_body_size() or inf)

    async def json(self) -> Any:
        """The decoded body. Raises :class:`InvalidRequest` that names the field at fault."""
        field = self.route_handler.parsed_data_field
        body = await self.body()
        data = decode(body, Any if field is None else field.annotation)
        note_of(self.scope).asked(data)
        if caller := caller_of(self.scope):
            caller.check(data)
        if isinstance(data, msgspec.Struct):
            look_at(unknown(body, data), data)
        return data


def unknown(body: bytes, data: msgspec.Struct) -> dict[str, msgspec.Raw]:
    """The fields of a body that its struct does not know."""
    sent: dict[str, msgspec.Raw] = _decoded(body, dict[str, msgspec.Raw])
    return {name: value for name, value in sent.items() if name not in data.__struct_encode_fields__}


def look_at(strangers: dict[str, msgspec.Raw], data: msgspec.Struct) -> None:
    """Fields that nobody knows are ignored; raises :class:`InvalidRequest` for another server's that ask for much."""
    if not strangers:
        return
    if isinstance(data, GenerationFields):
        peers.refuse(data, {name: _decoded(raw, Any) for name, raw in strangers.items() if name in peers.BY_NAME})
    names = sorted(name[:64] for name in strangers)[:32]
    structlog.get_logger("switchyard").debug("fields ignored", fields=names)


def decode(body: bytes, type_: Any) -> Any:
    """JSON to ``type_``. Raises :class:`InvalidRequest`, whatever the bytes are."""
    if not body.strip():
        raise InvalidRequest("The body is empty; send a JSON object.")
    if depth(body) > MAX_DEPTH:
        raise InvalidRequest(f"The body is nested deeper than {MAX_DEPTH} levels.")
    if body.count(b",") > MAX_VALUES and STRINGS.sub(b"", body).count(b",") > MAX_VALUES:
        raise InvalidRequest(f"The lists of the body have more than {MAX_VALUES} elements.")
    return _decoded(body, type_)


def _decoded(body: bytes | msgspec.Raw, type_: Any) -> Any:
    try:
        return msgspec.json.decode(body, type=type_, strict=True)
    except msgspec.ValidationError as error:
        raise invalid(str(error)) from None
    except UnicodeDecodeError:
        raise InvalidRequest("The body is not valid UTF-8.") from None
    except msgspec.DecodeError as error:
        if LONE_SURROGATE.search(bytes(body)):
            raise InvalidRequest("The body is not valid JSON text: it escapes an unpaired surrogate.") from None
        raise InvalidRequest(f"The body is not valid JSON: {error}.") from None


def depth(body: bytes) -> int:
    """How deep arrays and objects are nested, or a bound that is within ``MAX_DEPTH``. Strings do not count."""
    if body.count(b"[") + body.count(b"{") <= MAX_DEPTH:
        return MAX_DEPTH
    brackets = STRINGS.sub(b"", body).translate(None, NO_BRACKETS)
    return max(accumulate(map(STEPS.__getitem__, brackets)), default=0)


def invalid(text: str, within: str = "") -> InvalidRequest:
    """``Expected `int`, got `str` - at `$.messages[0].name``` as a sentence and OpenAI's ``param``.

    ``within`` is where what is wrong stands, if it is not the whole body.
    """
    place = PLACE.search(text)
    problem = text if place is None else text[: place.start()]
    steps = [*within.split("."), *(re.findall(r"[^.\[\]]+", place["path"]) if place else [])]
    if missing := MISSING.search(problem):
        steps.append(missing["name"])
    if "..." in steps:
        steps = steps[: steps.index("...")]
    param = ".".join(step for step in steps if step)
    return InvalidRequest(f"{param}: {problem}." if param else f"The body is wrong: {problem}.", param=param or None)
