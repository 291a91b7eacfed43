"""A running job, watched: measured, bounded in time, and known to whoever stops the service."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Any

from app.api.observe.record import record_of
from app.api.observe.service_state import Vitals
from app.api.protect.deadline import Deadline
from app.errors import SwitchyardError
from app.generation.events import Events


async def watched(
    scope: Any, told: AsyncGenerator[Events, None], vitals: Vitals, seconds: float
) -> AsyncGenerator[Events, None]:
    """What is ``told`` until it ends, fails, takes longer than ``seconds`` or the service stops."""
    record, deadline = record_of(scope), Deadline(seconds)
    vitals.begin(deadline)
    try:
        async with aclosing(told):
            with deadline:
                while True:
                    try:
                        events = await deadline.next(told)
                    except StopAsyncIteration:
                        return
                    for event in events:
                        record.see(event)
                    yield events
    except SwitchyardError as failure:
        record.error = failure.code or type(failure).__name__
        raise
    except Exception:
        record.error = "internal_error"
        raise
    finally:
        vitals.end(deadline)
