"""Metadata and producer ids: requested from any broker, on a connection of their own.

A broker serves the requests of one connection in order. So on the connection for messages, these requests
would wait behind a produce request that waits for a frozen follower. All brokers give the same responses, so
we take the first that responds, and ask it again until it is slow or gone.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import trio
from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest

from .._core import Reaction, refusal, row
from .._errors import ConnectFailed, ConnectionLost
from ._connection import Connection, SetupFailed
from ._endpoints import Address, Endpoints, Pace, name_of
from ._exchange import ApiExchange, Exchange
from ._produce_codec import lowest_version
from ._protocol import (
    LOWEST_METADATA_VERSION,
    ClusterMetadata,
    cluster_metadata,
    metadata_request,
    producer_id,
    producer_id_request,
)
from ._reasons import has_ended
from ._second_look import look_again, look_for_login
from ._troubles import PATIENCE

if TYPE_CHECKING:
    from .._settings import Settings
    from ._second_look import Connect

#: How many known brokers are tried side by side, besides the bootstrap servers.
_SIDE_BY_SIDE = 3

#: How long one broker may take, in seconds, before others are asked as well; and how long the others may
#: take once one has refused us.
_HEAD_START = 1.0

#: How long we request the same from one broker only, in seconds. It may be cut off from the rest of the
#: cluster, and go on telling what was true before.
_BELIEVED_FOR = 5.0

#: The opening ends after this number of lasting failures in a row at each bootstrap server.
_ENOUGH = 2

#: UNSUPPORTED_VERSION, for a broker that has no version of a request.
_UNSUPPORTED = 35

_WITHOUT_ID = "no broker gave a producer id; without idempotence, acks=1, none is needed"


@dataclass(frozen=True)
class _Query:
    """A request for any broker.

    `about`: what it asks for. `make` makes a request of a version, `read` takes the response apart.
    `unsupported`: stands for the response of a broker that has no version of the request.
    """

    about: tuple[str, ...]
    kind: Any
    make: Callable[[int], Any]
    read: Callable[[Any], Any]
    unsupported: Any = None


class AnyBroker:
    """Makes one query after the other."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._settings = endpoints.settings
        self._core = endpoints.core
        self._steps = endpoints.steps
        self._asks, self._to_ask = trio.open_memory_channel[Callable[[], Awaitable[None]]](inf)
        self._link: _Link | None = None
        self._asked: dict[str, tuple[float, float]] = {}  # what, since when without a break, when last
        self._opened = False
        self._causes: dict[str, BaseException] = {}
        self._lasting: dict[Address, int] = {}  # how many such failures there were in a row

    def request_metadata(self, topics: tuple[str, ...]) -> None:
        """`ProduceCore.metadata` or `.metadata_failed` follows."""
        self._asks.send_nowait(partial(self._metadata, topics))

    def request_producer_id(self) -> None:
        """`ProduceCore.producer_id` or `.producer_id_failed` follows."""
        self._asks.send_nowait(self._producer_id)

    async def open(self) -> ConnectFailed | None:
        """Wait for the first response of any broker; at most `connect_timeout`.

        It ends earlier if waiting does not help: if a broker refuses our credentials or we refuse its
        certificate (`SetupFailed.fatal`), or if the last two failures of every bootstrap server are
        `SetupFailed.lasting`. Everything else may pass: nobody listens yet, a name is not known yet, nothing
        responds, or a proxy accepts and closes because there is no Kafka behind it yet.
        """
        timeout = self._settings.connect_timeout
        in_vain = False
        with trio.move_on_after(timeout):
            while not in_vain:
                try:
                    await self._ask_for_metadata(())
                except _AllFailed as failure:
                    in_vain = failure.fatal or self._all_is_lasting()
                else:
                    self._opened = True
                    return None
        return self._connect_failed(
            "cannot connect" if in_vain else f"no broker responded within {timeout:g} s"
        )

    def _all_is_lasting(self) -> bool:
        return all(self._lasting.get(address, 0) >= _ENOUGH for address in self._settings.bootstrap_servers)

    async def run(self) -> None:
        async for ask in self._to_ask:
            await ask()

    # ---- the queries -------------------------------------------------------------------------------------

    async def _metadata(self, topics: tuple[str, ...]) -> None:
        try:
            metadata = await self._ask_for_metadata(topics)
        except _AllFailed:
            self._steps.post(self._core.metadata_failed, topics, self._endpoints.trouble())
        else:
            self._steps.post(self._core.metadata, metadata.topics, topics)

    async def _ask_for_metadata(self, topics: tuple[str, ...]) -> ClusterMetadata:
        make = partial(metadata_request, topics, auto_create=self._settings.allow_auto_create_topics)
        metadata: ClusterMetadata = await self._ask(_Query(topics, MetadataRequest, make, cluster_metadata))
        self._endpoints.learn(metadata.brokers)
        return metadata

    async def _producer_id(self) -> None:
        about = ("InitProducerId",)
        query = _Query(about, InitProducerIdRequest, producer_id_request, producer_id, (_UNSUPPORTED, -1))
        try:
            code, given = await self._ask(query)
        except _AllFailed as failure:
            texts = sorted(f"{name_of(address)}: {cause}" for address, cause in failure.causes.items())
            # If no broker could even be asked, they are down, which is logged elsewhere.
            self._no_producer_id(ConnectionLost(f"{_WITHOUT_ID} ({'; '.join(texts)})") if texts else None)
            return
        if code:
            self._no_producer_id(refusal(code, _WITHOUT_ID), final=row(code).reaction is Reaction.REFUSED)
        else:
            self._endpoints.no_producer_id = None
            self._endpoints.log.over("InitProducerId", "a broker gave a producer id")
            self._steps.post(self._core.producer_id, given)

    def _no_producer_id(self, cause: BaseException | None, *, final: bool = False) -> None:
        if cause is not None:
            self._endpoints.no_producer_id = cause
            self._endpoints.log.trouble("InitProducerId", str(cause), final=final, patience=PATIENCE)
        self._steps.post(self._core.producer_id_failed, cause, final=final)

    # ---- asking ------------------------------------------------------------------------------------------

    async def _ask(self, query: _Query) -> Any:
        """The response of the connected broker; if that is slow, gone or no help, the first of any other."""
        link = None if self._link is None or self._link.ended.is_set() else self._link
        others = [at for at in self._candidates() if link is None or at != link.connection.address]
        async with trio.open_nursery() as nursery:
            race = _Race(query, nursery)
            if link is None:
                self._enter(race, others)
            elif others and self._asks_in_vain(query):
                self._enter(race, others)
                await race.head_start()
                race.enter(link.connection.address, self._ask_link, link)
            else:
                race.enter(link.connection.address, self._ask_link, link)
                await race.head_start()
                self._enter(race, others if race.hopeful else self._candidates())
            race.all_have_entered()
        if race.winner is None:
            raise _AllFailed(race.causes, fatal=race.fatal)
        if link is not None and race.winner is not link:
            link.connection.close()
        self._link = race.winner
        return race.response

    def _enter(self, race: _Race, addresses: Iterable[Address]) -> None:
        for address in addresses:
            race.enter(address, self._compete, address)

    def _candidates(self) -> list[Address]:
        known = list(self._endpoints.addresses.values())
        some = random.sample(known, min(len(known), _SIDE_BY_SIDE))
        return list(dict.fromkeys([*some, *self._settings.bootstrap_servers]))

    def _asks_in_vain(self, query: _Query) -> bool:
        """Whether one broker has been asked for the same for too long."""
        now = trio.current_time()
        self._asked = {about: at for about, at in self._asked.items() if now - at[1] <= _BELIEVED_FOR}
        for about in query.about:
            first, _ = self._asked.get(about, (now, now))
            self._asked[about] = (first, now)
        if any(now - self._asked[about][0] > _BELIEVED_FOR for about in query.about):
            self._asked.clear()
            return True
        return False

    @trio.lowlevel.enable_ki_protection
    async def _compete(self, race: _Race, address: Address) -> None:
        """Connect and ask until the race is over. If this fails before the others have, try again."""
        pace = self._endpoints.pace(address)
        while True:
            await pace.wait()
            pace.attempt()
            # Produce as well: if all brokers are too old for it, the opening fails, and not each message.
            produce = lowest_version(self._endpoints.settings.compression)
            needs = ((MetadataRequest, LOWEST_METADATA_VERSION), (ProduceRequest, produce))
            connection = self._endpoints.make_connection(address, needs=needs)
            try:
                await connection.open()
            except SetupFailed as error:
                failure = error if self._opened else await look_again(error, *self._again(address))
                self._endpoints.tell_failure(pace, failure)
                self._note(address, failure)
                race.lose(address, fatal=failure.fatal)
                if failure.fatal and not self._opened:
                    race.hurry()
            except trio.Cancelled:
                self._note_step(connection)
                raise
            else:
                self._endpoints.opened(address)
                await self._ask_new_link(race, _Link(connection, pace))

    def _again(self, address: Address) -> tuple[Settings, Connect]:
        """For a second look at an address."""
        make = self._endpoints.make_connection
        return self._settings, lambda settings: make(address, settings=settings)

    async def _ask_new_link(self, race: _Race, link: _Link) -> None:
        self._endpoints.start_soon(link.serve, self._endpoints)  # only `serve` closes it
        try:
            await self._ask_link(race, link)
        finally:
            if race.winner is not link:
                link.connection.close()

    @trio.lowlevel.enable_ki_protection
    async def _ask_link(self, race: _Race, link: _Link) -> None:
        # Long enough for a slow broker. One that does not respond by then is left for good.
        timeout = min(self._settings.request_timeout, self._settings.connection_setup_timeout)
        try:
            response = await link.ask(race.query, timeout)
        except ConnectionLost as error:
            link.connection.close()
            await self._lost(race, link, error)
        else:
            self._endpoints.responded(link.pace)
            race.win(link, response)

    async def _lost(self, race: _Race, link: _Link, error: ConnectionLost) -> None:
        """The connection ended before a response came."""
        address = link.connection.address
        failure: SetupFailed | None = None
        if not self._opened and has_ended(error):
            failure = await look_for_login(*self._again(address))
        if not link.pace.is_proven:
            self._endpoints.tell_failure(link.pace, failure or error)
        self._note(address, failure or error)
        race.lose(address, cause=error)

    def _note(self, address: Address, error: BaseException) -> None:
        """Remember an error for `ConnectFailed`. No later error replaces one that is final."""
        self._lasting[address] = self._lasting.get(address, 0) + 1 if getattr(error, "lasting", False) else 0
        if not self._opened and not getattr(self._causes.get(name_of(address)), "fatal", False):
            self._causes[name_of(address)] = error

    def _note_step(self, connection: Connection) -> None:
        """Remember how far a connection came, in case the time for opening ended."""
        if not self._opened:
            silence = trio.TooSlowError(f"{connection.doing}: no response")
            self._causes.setdefault(name_of(connection.address), silence)

    def _connect_failed(self, what: str) -> ConnectFailed:
        names = dict.fromkeys(name_of(address) for address in self._settings.bootstrap_servers)
        causes = {name: self._causes.get(name, trio.TooSlowError("no response")) for name in names}
        text = "; ".join(f"{name}: {cause}" for name, cause in causes.items())
        return ConnectFailed(f"{what}: {text}", causes)


class _Race:
    """Several brokers get the same query. It ends with the first response, or when all have failed."""

    def __init__(self, query: _Query, nursery: trio.Nursery) -> None:
        self.query = query
        self.fatal = False
        self.winner: _Link | None = None
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

    def win(self, link: _Link, response: Any) -> None:
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


class _AllFailed(Exception):
    """No broker has responded to a query.

    Attributes:
        causes (dict): how the connections ended on which brokers were asked.
        fatal (bool): one of the brokers has refused us.
    """

    def __init__(self, causes: dict[Address, ConnectionLost], *, fatal: bool) -> None:
        self.causes = causes
        self.fatal = fatal


class _Link:
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

    async def ask(self, query: _Query, timeout: float) -> Any:
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
