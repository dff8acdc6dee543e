"""Metadata and producer ids: asked of any broker, on a connection of their own.

A broker serves one connection in order, so behind a produce request that waits for a frozen follower
everything waits. Answers do not depend on who gives them, so whoever answers first is taken, and is asked
again until he is slow or gone.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from logging import INFO, WARNING
from math import inf
from typing import Any

import trio
from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest

from .._core import Reaction, refusal, row
from .._errors import ConnectFailed, ConnectionLost
from ._connection import Connection, SetupFailed
from ._endpoints import Address, Endpoints, Pace, name_of
from ._exchange import ApiExchange, Exchange
from ._protocol import (
    LOWEST_METADATA_VERSION,
    ClusterMetadata,
    cluster_metadata,
    metadata_request,
    producer_id,
    producer_id_request,
)

#: How many known brokers are tried side by side, besides the bootstrap servers.
_SIDE_BY_SIDE = 3

#: How long one broker may take, in seconds, before others are asked as well; and how long the others may
#: take once one has refused us.
_HURRY = 1.0

#: How long the same is asked of one broker, in seconds. It may be cut off from the rest of the cluster, and
#: go on telling what was true before.
_BELIEVED = 5.0


@dataclass(frozen=True)
class _Query:
    """A request for any broker.

    `about`: what it asks for. `make` makes a request of a version, `read` takes the response apart.
    """

    about: tuple[str, ...]
    kind: Any
    lowest: int
    make: Callable[[int], Any]
    read: Callable[[Any], Any]


class AnyBroker:
    """Asks one question after the other."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._settings = endpoints.settings
        self._events = endpoints.events
        self._asks, self._to_ask = trio.open_memory_channel[Callable[[], Awaitable[None]]](inf)
        self._link: _Link | None = None
        self._asked: dict[str, tuple[float, float]] = {}  # what, when first, when last, without a break
        self._opened = False
        self._causes: dict[str, BaseException] = {}

    def request_metadata(self, topics: tuple[str, ...]) -> None:
        """`Events.metadata` or `Events.metadata_failed` follows."""
        self._asks.send_nowait(partial(self._metadata, topics))

    def request_producer_id(self) -> None:
        """`Events.producer_id` or `Events.producer_id_failed` follows."""
        self._asks.send_nowait(self._producer_id)

    async def open(self) -> ConnectFailed | None:
        """Wait for the first answer of any broker; at most `connect_timeout`, and not if one refuses us."""
        timeout = self._settings.connect_timeout
        refused = False
        with trio.move_on_after(timeout):
            while not refused:
                try:
                    await self._ask_for_metadata(())
                except _NoAnswer as failure:
                    refused = failure.fatal
                else:
                    self._opened = True
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
            self._events.metadata(metadata, topics)

    async def _producer_id(self) -> None:
        about = ("InitProducerId",)
        question = _Query(about, InitProducerIdRequest, 0, producer_id_request, producer_id)
        try:
            code, given = await self._ask(question)
        except _NoAnswer:
            self._events.producer_id_failed(None)
            return
        if not code:
            self._events.producer_id(given)
        else:
            final = row(code).reaction is Reaction.REFUSED
            self._settings.logger.log(WARNING if final else INFO, "InitProducerId: %s", refusal(code))
            self._events.producer_id_failed(refusal(code) if final else None)

    async def _ask_for_metadata(self, topics: tuple[str, ...]) -> ClusterMetadata:
        make = partial(metadata_request, topics, auto_create=self._settings.allow_auto_create_topics)
        question = _Query(topics, MetadataRequest, LOWEST_METADATA_VERSION, make, cluster_metadata)
        metadata: ClusterMetadata = await self._ask(question)
        self._endpoints.learn(metadata.brokers)
        return metadata

    # ---- asking ------------------------------------------------------------------------------------------

    async def _ask(self, question: _Query) -> Any:
        """The answer of the connected broker; where that is slow, gone or no help, of the first of others."""
        link = None if self._link is None or self._link.ended.is_set() else self._link
        others = [at for at in self._candidates() if link is None or at != link.connection.address]
        async with trio.open_nursery() as nursery:
            race = _Race(question, nursery)
            if link is None:
                self._enter(race, others)
            elif others and self._asks_in_vain(question):
                self._enter(race, others)
                await race.head_start()
                race.enter(link.connection.address, self._ask_link, link)
            else:
                race.enter(link.connection.address, self._ask_link, link)
                await race.head_start()
                self._enter(race, others if race.hopeful else self._candidates())
            race.all_have_entered()
        if race.winner is None:
            raise _NoAnswer(fatal=race.fatal)
        if link is not None and race.winner is not link:
            link.connection.close()
        self._link = race.winner
        return race.answer

    def _enter(self, race: _Race, addresses: Iterable[Address]) -> None:
        for address in addresses:
            race.enter(address, self._compete, address)

    def _candidates(self) -> list[Address]:
        known = list(self._endpoints.addresses.values())
        some = random.sample(known, min(len(known), _SIDE_BY_SIDE))
        return list(dict.fromkeys([*some, *self._settings.bootstrap_servers]))

    def _asks_in_vain(self, question: _Query) -> bool:
        """Whether the same has been asked for too long."""
        now = trio.current_time()
        self._asked = {about: times for about, times in self._asked.items() if now - times[1] <= _BELIEVED}
        for about in question.about:
            first, _ = self._asked.get(about, (now, now))
            self._asked[about] = (first, now)
        if any(now - self._asked[about][0] > _BELIEVED for about in question.about):
            self._asked.clear()
            return True
        return False

    async def _compete(self, race: _Race, address: Address) -> None:
        """Connect and ask, until the race is over: while one of the others takes long to fail, try again."""
        pace = self._endpoints.pace(address)
        while True:
            await pace.wait()
            pace.attempt()
            needs = ((MetadataRequest, LOWEST_METADATA_VERSION),)
            connection = self._endpoints.make_connection(address, needs=needs)
            try:
                await connection.open()
            except SetupFailed as error:
                self._endpoints.tell_failure(pace, error)
                self._lose(race, address, error)
            except trio.Cancelled:
                self._note_step(connection)
                raise
            else:
                await self._ask_new_link(race, _Link(connection, pace))

    async def _ask_new_link(self, race: _Race, link: _Link) -> None:
        self._endpoints.start_soon(link.serve, self._endpoints)  # which alone closes it
        try:
            await self._ask_link(race, link)
        finally:
            if race.winner is not link:
                link.connection.close()

    async def _ask_link(self, race: _Race, link: _Link) -> None:
        try:
            answer = await link.ask(race.question, self._patience)
        except (ConnectionLost, SetupFailed) as error:
            link.connection.close()
            self._lose(race, link.connection.address, error)
        else:
            link.pace.answered()
            race.win(link, answer)

    def _lose(self, race: _Race, address: Address, error: BaseException) -> None:
        fatal = isinstance(error, SetupFailed) and error.fatal
        race.lose(address, fatal=fatal)
        if not self._opened:
            self._causes[name_of(address)] = error
            if fatal:
                race.hurry()

    def _note_step(self, connection: Connection) -> None:
        """How far it came, in case it was the time for opening that ended."""
        if not self._opened:
            silence = trio.TooSlowError(f"{connection.doing}: no answer")
            self._causes.setdefault(name_of(connection.address), silence)

    @property
    def _patience(self) -> float:
        """A broker that does not answer is left for good; a slow one is not hurried."""
        return min(self._settings.request_timeout, self._settings.connection_setup_timeout)

    def _connect_failed(self, what: str) -> ConnectFailed:
        told = dict.fromkeys(name_of(address) for address in self._settings.bootstrap_servers)
        causes = {name: self._causes.get(name, trio.TooSlowError("no answer")) for name in told}
        text = "; ".join(f"{name}: {cause}" for name, cause in causes.items())
        return ConnectFailed(f"{what}: {text}", causes)


class _Race:
    """Brokers who are asked the same, side by side. Ends with the first answer, or when all have failed."""

    def __init__(self, question: _Query, nursery: trio.Nursery) -> None:
        self.question = question
        self.fatal = False
        self.winner: _Link | None = None
        self.answer: Any = None
        self.hopeful: set[Address] = set()  # who has not failed yet
        self._hopeless = trio.Event()
        self._complete = False
        self._nursery = nursery

    def enter(self, address: Address, run: Callable[..., Awaitable[None]], *args: Any) -> None:
        self.hopeful.add(address)
        self._nursery.start_soon(run, self, *args)

    async def head_start(self) -> None:
        """Wait before others enter, unless there is nothing left to wait for."""
        with trio.move_on_after(_HURRY):
            await self._hopeless.wait()

    def all_have_entered(self) -> None:
        self._complete = True
        self._end_if_hopeless()

    def win(self, link: _Link, answer: Any) -> None:
        if self.winner is None:
            self.winner, self.answer = link, answer
            self._nursery.cancel_scope.cancel()

    def lose(self, address: Address, *, fatal: bool) -> None:
        self.fatal = self.fatal or fatal
        self.hopeful.discard(address)
        self._end_if_hopeless()

    def hurry(self) -> None:
        """End soon."""
        scope = self._nursery.cancel_scope
        scope.deadline = min(scope.deadline, trio.current_time() + _HURRY)

    def _end_if_hopeless(self) -> None:
        if not self.hopeful:
            self._hopeless.set()
            if self._complete:
                self._nursery.cancel_scope.cancel()


class _NoAnswer(Exception):
    """Nobody answered a question."""

    def __init__(self, *, fatal: bool) -> None:
        self.fatal = fatal


class _Link:
    """A connection that is being served, and on which one waits for answers."""

    def __init__(self, connection: Connection, pace: Pace) -> None:
        self.connection = connection
        self.pace = pace
        self.name = name_of(connection.address)
        self.ended = trio.Event()
        self._cause: BaseException | None = None
        self._changed = trio.Event()

    async def serve(self, endpoints: Endpoints) -> None:
        endpoints.events.observe("connected", broker=self.name)
        endpoints.events.tell_observed()
        try:
            await self.connection.serve()
        except ConnectionLost as error:
            self._cause = error
            endpoints.tell_end(self.pace, error)
        finally:
            self.ended.set()
            self._changed.set()
        endpoints.events.observe("disconnected", broker=self.name, error=self._cause)
        endpoints.events.tell_observed()

    async def ask(self, question: _Query, timeout: float) -> Any:
        """Raises `ConnectionLost`, `SetupFailed`."""
        answers: list[Any] = []

        def on_answer(_: Exchange, answer: Any) -> None:
            answers.append(answer)
            self._changed.set()

        version = self.connection.usable_version(question.kind, question.lowest)
        request = ApiExchange(question.make(version), timeout, on_answer, read=question.read)
        self.connection.send(request)
        while not answers and not self.ended.is_set():
            self._changed = trio.Event()
            await self._changed.wait()
        if answers:
            return answers[0]
        raise self._cause or ConnectionLost("the connection was closed")
