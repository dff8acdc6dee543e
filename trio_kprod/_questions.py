"""Metadata and producer ids: asked of any broker, on a connection of their own.

A broker serves one connection in order, so behind a produce request that waits for a frozen follower
everything waits. Answers do not depend on who gives them, so whoever can be connected to first is asked.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable
from functools import partial
from logging import INFO, WARNING
from math import inf
from typing import Any

import trio
from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest

from ._connection import Connection, Exchange, SetupFailed
from ._core._answers import Verdict, refusal, row
from ._endpoints import Address, Endpoints, name_of, usable_version
from ._errors import ConnectFailed, ConnectionLost
from ._protocol import (
    LOWEST_METADATA_VERSION,
    ClusterMetadata,
    cluster_metadata,
    metadata_request,
    producer_id_request,
)

#: How many known brokers are tried side by side, besides the bootstrap servers.
_SIDE_BY_SIDE = 3


class Questions:
    """Asks one question after the other."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._settings = endpoints.settings
        self._events = endpoints.events
        self._asks, self._to_ask = trio.open_memory_channel[Callable[[], Awaitable[None]]](inf)
        self._link: _Link | None = None
        self._causes: dict[str, BaseException] = {}

    def ask_metadata(self, topics: tuple[str, ...]) -> None:
        """`Events.metadata` or `Events.metadata_failed` follows."""
        self._asks.send_nowait(partial(self._metadata, topics))

    def ask_producer_id(self) -> None:
        """`Events.producer_id` or `Events.producer_id_failed` follows."""
        self._asks.send_nowait(self._producer_id)

    async def open(self) -> ConnectFailed | None:
        """Wait for the first answer of any broker; at most `connect_timeout`, and not if one refuses us."""
        timeout = self._settings.connect_timeout
        refused = False
        with trio.move_on_after(timeout):
            while not refused:
                try:
                    self._learn_brokers(await self._ask_for_metadata(()))
                except _NoAnswer as failure:
                    refused = failure.fatal
                else:
                    return None
        return self._connect_failed(
            "a broker refused the connection" if refused else f"no broker answered within {timeout:g} s"
        )

    async def run(self) -> None:
        async for ask in self._to_ask:
            await ask()

    # ---- the questions -----------------------------------------------------------------------------------

    async def _metadata(self, topics: tuple[str, ...]) -> None:
        try:
            metadata = await self._ask_for_metadata(topics)
        except _NoAnswer:
            self._events.metadata_failed(topics)
        else:
            self._learn_brokers(metadata)
            self._events.metadata(metadata, topics)

    async def _producer_id(self) -> None:
        try:
            response = await self._ask(InitProducerIdRequest, 0, producer_id_request)
        except _NoAnswer:
            self._events.producer_id_failed(None)
            return
        code = response.error_code
        if not code:
            self._events.producer_id(response.producer_id)
        else:
            final = row(code).verdict is Verdict.REFUSED
            self._settings.logger.log(WARNING if final else INFO, "InitProducerId: %s", refusal(code))
            self._events.producer_id_failed(refusal(code) if final else None)

    async def _ask_for_metadata(self, topics: tuple[str, ...]) -> ClusterMetadata:
        auto_create = self._settings.allow_auto_create_topics
        make = partial(metadata_request, topics, auto_create=auto_create)
        return cluster_metadata(await self._ask(MetadataRequest, LOWEST_METADATA_VERSION, make))

    def _learn_brokers(self, metadata: ClusterMetadata) -> None:
        self._endpoints.addresses.update(metadata.brokers)

    # ---- asking ------------------------------------------------------------------------------------------

    async def _ask(self, kind: Any, lowest: int, make: Callable[[int], Any]) -> Any:
        """The answer of the connected broker, or else of the first that can be connected to."""
        link = self._link
        if link is None or link.ended.is_set():
            link = self._link = await self._connect_to_any()
        try:
            version = usable_version(link.connection, kind, lowest)
            answer = await link.ask(make(version), self._patience)
        except (ConnectionLost, SetupFailed) as error:
            link.connection.close()
            self._causes[link.name] = error
            raise _NoAnswer(fatal=isinstance(error, SetupFailed) and error.fatal) from error
        self._endpoints.pace(link.connection.address).answered()
        return answer

    @property
    def _patience(self) -> float:
        """A broker that does not answer is left for another; a slow one is not hurried."""
        return min(self._settings.request_timeout, self._settings.connection_setup_timeout)

    async def _connect_to_any(self) -> _Link:
        """Try side by side; the first that can be used is taken."""
        race = _Race()
        async with trio.open_nursery() as nursery:
            for address in self._candidates():
                nursery.start_soon(self._compete, race, address, nursery.cancel_scope)
        if race.winner is None:
            raise _NoAnswer(fatal=race.fatal)
        return race.winner

    def _candidates(self) -> list[Address]:
        known = list(self._endpoints.addresses.values())
        some = random.sample(known, min(len(known), _SIDE_BY_SIDE))
        return list(dict.fromkeys([*some, *self._settings.bootstrap_servers]))

    async def _compete(self, race: _Race, address: Address, scope: trio.CancelScope) -> None:
        pace = self._endpoints.pace(address)
        await pace.wait()
        pace.attempt()
        connection = self._endpoints.make_connection(address)
        try:
            await connection.open()
        except SetupFailed as error:
            race.fatal = race.fatal or error.fatal
            self._causes[name_of(address)] = error
            self._endpoints.tell_failure(address, error)
            return
        link = _Link(connection)
        self._endpoints.start_soon(link.serve, self._endpoints)  # which alone closes it
        if race.winner is None:
            race.winner = link
            scope.cancel()
        else:
            connection.close()

    def _connect_failed(self, what: str) -> ConnectFailed:
        told = dict.fromkeys(name_of(address) for address in self._settings.bootstrap_servers)
        causes = {name: self._causes.get(name, trio.TooSlowError("no answer")) for name in told}
        text = "; ".join(f"{name}: {cause}" for name, cause in causes.items())
        return ConnectFailed(f"{what}: {text}", causes)


class _Race:
    """The connections that are being tried side by side."""

    def __init__(self) -> None:
        self.winner: _Link | None = None
        self.fatal = False


class _NoAnswer(Exception):
    """Nobody answered a question."""

    def __init__(self, *, fatal: bool) -> None:
        self.fatal = fatal


class _Link:
    """A connection that is being served, and on which one waits for answers."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self.name = name_of(connection.address)
        self.ended = trio.Event()
        self._cause: BaseException | None = None
        self._changed = trio.Event()

    async def serve(self, endpoints: Endpoints) -> None:
        endpoints.events.observe("connected", broker=self.name)
        try:
            await self.connection.serve()
        except ConnectionLost as error:
            self._cause = error
            endpoints.tell_end(self.connection.address, error)
        finally:
            self.ended.set()
            self._changed.set()
        endpoints.events.observe("disconnected", broker=self.name, error=self._cause)

    async def ask(self, request: Any, timeout: float) -> Any:
        """Raises `ConnectionLost`."""
        answers: list[Any] = []

        def on_answer(_: Exchange, response: Any) -> None:
            answers.append(response)
            self._changed.set()

        self.connection.send(Exchange(request, timeout, on_answer))
        while not answers and not self.ended.is_set():
            self._changed = trio.Event()
            await self._changed.wait()
        if answers:
            return answers[0]
        raise self._cause or ConnectionLost("the connection was closed")
