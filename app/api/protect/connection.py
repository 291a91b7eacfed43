"""The client's side of a connection: work that ends when it goes."""

from collections.abc import Awaitable
from typing import TypeVar

from anyio import CancelScope, create_task_group
from litestar.types import Receive

from app.api.read.body import ClientGone

T = TypeVar("T")


async def while_connected(receive: Receive, work: Awaitable[T]) -> T:
    """The result of ``work``, which is cancelled and becomes :class:`ClientGone` if the client goes first.

    To be called once the request's body has been read. ``work`` runs in the calling task.
    """
    results: list[T] = []
    failures: list[Exception] = []
    async with create_task_group() as group:
        group.start_soon(cancel_when_gone, receive, group.cancel_scope)
        try:
            results.append(await work)
        except Exception as error:  # noqa: BLE001  raised below, outside the group, which would wrap it
            failures.append(error)
        group.cancel_scope.cancel()
    if failures:
        raise failures[0]
    if not results:
        raise ClientGone
    return results[0]


async def cancel_when_gone(receive: Receive, scope: CancelScope) -> None:
    """Cancel ``scope`` once the client has closed the connection."""
    while (await receive())["type"] != "http.disconnect":
        pass
    scope.cancel()
