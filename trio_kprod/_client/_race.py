"""One question to several brokers at once: the first response counts, or that all have failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import trio

from .._errors import ConnectionLost
from ._connection import Connection
from ._endpoints import Address, Endpoints, Pace
from ._exchange import ApiExchange, Exchange

#: How long one broker may take, in seconds, before others are asked as well; and how long the others may
#: take once one has refused us.
_HEAD_START = 1.0


@dataclass(frozen=True)
class Query:
    """A request for any broker.

    `about`: what it asks for. `make` makes a request of a version, `read` takes the response apart.
    `unsupported`: stands for the response of a broker that has no version of the request.
    """

    about: tuple[str, ...]
    kind: Any
    make: Callable[[int], Any]
    read: Callable[[Any], Any]
    unsupported: Any = None


class Race:
    """Several brokers get the same query. It ends with the first response, or when all have failed."""

    def __init__(self, query: Query, nursery: trio.Nursery) -> None:
        self.query = query
        self.fatal = False
        self.winner: Link | None = None
        self.response: Any = None
        self.hopeful: set[Address] = set()  # those that have not failed yet
        self.causes: dict[Address, ConnectionLost] = {}  # of connections that ended instead of a response
        self._hopeless = trio.Event()
        self._complete = False
        self._nursery = nursery

    def enter(self, address: Address, run: Callable[..., Awaitable[None]], *args: Any) -> None:
        self.hopeful.add(address)
        self._nursery.start_soon(run, self, *args)

    async def head_start(self) -> None:
        """Wait before others enter, unless there is nothing left to wait for."""
        with trio.move_on_after(_HEAD_START):
            await self._hopeless.wait()

    def all_have_entered(self) -> None:
        self._complete = True
        self._end_if_hopeless()

    def win(self, link: Link, response: Any) -> None:
        if self.winner is None:
            self.winner, self.response = link, response
            self._nursery.cancel_scope.cancel()

    def lose(self, address: Address, *, fatal: bool = False, cause: ConnectionLost | None = None) -> None:
        self.fatal = self.fatal or fatal
        if cause is not None:
            self.causes[address] = cause
        self.hopeful.discard(address)
        self._end_if_hopeless()

    def hurry(self) -> None:
        """End soon."""
        scope = self._nursery.cancel_scope
        scope.deadline = min(scope.deadline, trio.current_time() + _HEAD_START)

    def _end_if_hopeless(self) -> None:
        if not self.hopeful:
            self._hopeless.set()
            if self._complete:
                self._nursery.cancel_scope.cancel()


class AllFailed(Exception):
    """No broker has responded to a query.

    Attributes:
        causes (dict): how the connections ended on which brokers were asked.
        fatal (bool): one of the brokers has refused us.
    """

    def __init__(self, causes: dict[Address, ConnectionLost], *, fatal: bool) -> None:
        self.causes = causes
        self.fatal = fatal


class Link:
    """A connection that is served, and on which one waits for responses."""

    def __init__(self, connection: Connection, pace: Pace) -> None:
        self.connection = connection
        self.pace = pace
        self.ended = trio.Event()
        self._cause: ConnectionLost | None = None
        self._changed = trio.Event()

    @trio.lowlevel.enable_ki_protection
    async def serve(self, endpoints: Endpoints) -> None:
        try:
            await self.connection.serve()
        except ConnectionLost as error:
            self._cause = error
        finally:
            self.ended.set()
            self._changed.set()
        # Before its first response, `AnyBroker._lost` reports the loss: it may know more of it.
        cause = self._cause if self.pace.is_proven else None
        endpoints.tell_end(self.pace, self.connection, cause)

    async def ask(self, query: Query, timeout: float) -> Any:
        """Raises `ConnectionLost`."""
        version = self.connection.version(query.kind)
        if version is None:
            return query.unsupported
        responses: list[Any] = []

        def on_response(_: Exchange, response: Any) -> None:
            responses.append(response)
            self._changed.set()

        self.connection.send(ApiExchange(query.make(version), timeout, on_response, read=query.read))
        while not responses and not self.ended.is_set():
            self._changed = trio.Event()
            await self._changed.wait()
        if responses:
            return responses[0]
        raise self._cause or ConnectionLost("the connection was closed")
