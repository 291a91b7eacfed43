"""Every failure that has a name, by what the caller can do about it.

::

    SwitchyardError
    ├── InvalidRequest      the request is wrong: change ``param`` and send it again          400
    ├── ModelUnusable       this model can never be served here: name another                 400
    ├── Unauthorized        no key, or a wrong one: send a valid API key                      401
    ├── Forbidden           the key, or the hub's licence, does not allow it                  403
    ├── ModelNotFound       no such model: look at GET /v1/models                             404
    ├── ResponseNotFound    no such response is kept: send the whole conversation             404
    ├── Conflict            the thing is in use: try again once it is free                    409
    ├── QueueFull           too many are waiting: try again after ``retry_after``             429
    ├── EngineFailed        generation broke on our side: the request may be sent again       500
    └── Unavailable         not now (loading, out of memory, hub away, stopping): try later   503
        └── EngineLost      the model's process has ended: send it again, it is loaded anew      503

The status of each stands in one table, ``app.api.errors``; nothing below ``api`` knows HTTP.
A message says what to do next and never holds a local path, a key or a stack trace.
"""


class SwitchyardError(Exception):
    """A failure that the caller is told about.

    ``code`` is OpenAI's machine-readable word for it, ``param`` the request field at fault (dotted, with list
    positions: ``messages.0.content``), ``retry_after`` the seconds after which the same request may succeed.
    """

    code: str | None = None

    def __init__(
        self, message: str, *, param: str | None = None, code: str | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.retry_after = retry_after
        if code is not None:
            self.code = code


class InvalidRequest(SwitchyardError):
    """A field has a value that cannot be honoured."""


class ModelUnusable(SwitchyardError):
    """The model exists but cannot be served here: not MLX-loadable, broken, or larger than the memory budget."""

    code = "model_unusable"


class Unauthorized(SwitchyardError):
    """The API key is missing or unknown."""

    code = "invalid_api_key"


class Forbidden(SwitchyardError):
    """The key's scope, the server's rules or the hub's licence gate forbids it."""

    code = "permission_denied"


class ModelNotFound(SwitchyardError):
    """No model of that name may be asked for."""

    code = "model_not_found"


class ResponseNotFound(SwitchyardError):
    """No response, or item of one, of that id is kept for the caller."""

    code = "response_not_found"


class Conflict(SwitchyardError):
    """The model is in use or already being changed."""

    code = "conflict"


class QueueFull(SwitchyardError):
    """A bounded queue or a rate limit is exhausted."""

    code = "queue_full"


class EngineFailed(SwitchyardError):
    """The engine broke while it worked on this request."""

    code = "engine_failed"


class Unavailable(SwitchyardError):
    """The service cannot take this request now, through no fault of the request."""

    code = "unavailable"


class EngineLost(Unavailable):
    """The process of the model has ended: a crash, a hang, the system's want of memory."""

    code = "engine_lost"
