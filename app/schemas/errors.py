"""The one shape of every failure's body."""

from msgspec import Struct


class ErrorDetail(Struct, frozen=True):
    """What went wrong, for people (``message``) and for programs; ``param`` is the request field at fault."""

    message: str
    type: str
    param: str | None = None
    code: str | None = None


class ErrorBody(Struct, frozen=True):
    """OpenAI's envelope."""

    error: ErrorDetail
