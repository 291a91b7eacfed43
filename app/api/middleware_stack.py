"""What stands around the endpoints of one application: who gets in, what is seen of it, how it ends."""

from collections.abc import Callable

from litestar import Litestar

from app.api.observe.journal import Journal, journaled
from app.api.observe.metrics import Metrics
from app.api.observe.record import Observer, observed
from app.api.observe.service_state import ServiceState
from app.api.observe.tracing import Tracer, tracer
from app.api.protect.access import Access
from app.api.protect.request_checks import RequestChecks
from app.observability import ASGIApp
from app.registry.registry import ModelRegistry
from app.settings import ModelEntry, Settings
from app.settings.keys import read_keys


class MiddlewareStack:
    """Made with the application; ``registry`` raises while there is none. Raises SettingsProblem for a bad key file."""

    def __init__(
        self,
        settings: Settings,
        registry: Callable[[], ModelRegistry],
        resident: Callable[[], ModelRegistry | None],
        journal: Journal,
    ) -> None:
        self._settings = settings
        self._journal = journal
        self._resident = resident
        self.service_state = ServiceState()
        keys, apart = read_keys(settings), settings.prefixes_by_key
        self.access = Access(keys, lambda model: registry().canonical(model), apart=apart)
        self.metrics = Metrics(resident, lambda: self.service_state.running)
        self._tracer: Tracer | None = None
        self._observers: tuple[Observer, ...] = (self.metrics.observe,)
        if settings.tracing:
            self._tracer = tracer()
            self._observers = (*self._observers, self._tracer)

    def stand_before(self, app: Litestar) -> None:
        """Put everything before the application's own handler."""
        inner: ASGIApp = journaled(app.asgi_handler, self._journal)
        app.asgi_handler = observed(RequestChecks(inner, self._settings, self.service_state), *self._observers)
        app.state.service_state = self.service_state
        app.state.request_timeout = self._settings.request_timeout

    def reload(self, models: dict[str, ModelEntry]) -> None:
        """Take what ``models.toml`` says now, and read the key file again; nobody is interrupted.

        A key file that is wrong raises SettingsProblem and changes nothing.
        """
        self.access.replace(read_keys(self._settings))
        registry = self._resident()
        if registry is not None:
            registry.reload(models)

    def close(self) -> None:
        """Send the traces that wait."""
        if self._tracer is not None:
            self._tracer.flush()
