"""Metadata and producer ids: requested from any broker, on a connection of their own.

A broker serves the requests of one connection in order. So on the connection for messages, these requests
would wait behind a produce request that waits for a frozen follower. All brokers give the same responses, so
we take the first that responds, and ask it again until it is slow or gone.
"""

from __future__ import annotations

import random
from collections.abc import Awaitable, Callable, Iterable
from functools import partial
from math import inf
from typing import TYPE_CHECKING, Any

import trio
from kafka.protocol.metadata import MetadataRequest
from kafka.protocol.producer import InitProducerIdRequest, ProduceRequest

from .._core import Reaction, refusal, row
from .._errors import ConnectFailed, ConnectionLost
from ._connection import Connection, SetupFailed
from ._endpoints import Address, Endpoints, name_of
from ._produce_codec import lowest_version
from ._protocol import (
    LOWEST_METADATA_VERSION,
    ClusterMetadata,
    cluster_metadata,
    metadata_request,
    producer_id,
    producer_id_request,
)
from ._race import AllFailed, Link, Query, Race
from ._reasons import has_ended
from ._second_look import look_again, look_for_login
from ._troubles import PATIENCE

if TYPE_CHECKING:
    from .._settings import Settings
    from ._second_look import Connect

#: How many known brokers are tried side by side, besides the bootstrap servers.
_SIDE_BY_SIDE = 3

#: How long we request the same from one broker only, in seconds. It may be cut off from the rest of the
#: cluster, and go on telling what was true before.
_BELIEVED_FOR = 5.0

#: The opening ends after this number of lasting failures in a row at each bootstrap server.
_ENOUGH = 2

#: UNSUPPORTED_VERSION, for a broker that has no version of a request.
_UNSUPPORTED = 35

_WITHOUT_ID = "no broker gave a producer id; without idempotence, acks=1, none is needed"


def needs_of(settings: Settings) -> tuple[tuple[Any, int], ...]:
    """What any broker must take, with the lowest version of each request.

    Produce as well: if all brokers are too old for it, the opening fails, and not each message.
    """
    produce = lowest_version(settings.compression)
    return (MetadataRequest, LOWEST_METADATA_VERSION), (ProduceRequest, produce)


def patience_of(settings: Settings) -> float:
    """How long to wait for a response of any broker, in seconds: a slow one gets its time."""
    return min(settings.request_timeout, settings.connection_setup_timeout)


class AnyBroker:
    """Makes one query after the other."""

    def __init__(self, endpoints: Endpoints) -> None:
        self._endpoints = endpoints
        self._settings = endpoints.settings
        self._core = endpoints.core
        self._steps = endpoints.steps
        self._asks, self._to_ask = trio.open_memory_channel[Callable[[], Awaitable[None]]](inf)
        self._link: Link | None = None
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
        `SetupFailed.lasting`. Every other failure may pass: no broker listens yet, a name is not
        known yet, nothing responds, or a proxy accepts and closes because there is no Kafka behind it yet.
        """
        timeout = self._settings.connect_timeout
        in_vain = False
        with trio.move_on_after(timeout):
            while not in_vain:
                try:
                    await self._ask_for_metadata(())
                except AllFailed as failure:
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
        except AllFailed:
            self._steps.post(self._core.metadata_failed, topics, self._endpoints.trouble())
        else:
            self._steps.post(self._core.metadata, metadata.topics, topics)

    async def _ask_for_metadata(self, topics: tuple[str, ...]) -> ClusterMetadata:
        make = partial(metadata_request, topics, auto_create=self._settings.allow_auto_create_topics)
        metadata: ClusterMetadata = await self._ask(Query(topics, MetadataRequest, make, cluster_metadata))
        self._endpoints.learn(metadata.brokers)
        return metadata

    async def _producer_id(self) -> None:
        about = ("InitProducerId",)
        query = Query(about, InitProducerIdRequest, producer_id_request, producer_id, (_UNSUPPORTED, -1))
        try:
            code, given = await self._ask(query)
        except AllFailed as failure:
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

    async def _ask(self, query: Query) -> Any:
        """The response of the connected broker; if that is slow, gone or no help, the first of any other."""
        link = None if self._link is None or self._link.ended.is_set() else self._link
        others = [at for at in self._candidates() if link is None or at != link.connection.address]
        async with trio.open_nursery() as nursery:
            race = Race(query, nursery)
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
            raise AllFailed(race.causes, fatal=race.fatal)
        if link is not None and race.winner is not link:
            link.connection.close()
        self._link = race.winner
        return race.response

    def _enter(self, race: Race, addresses: Iterable[Address]) -> None:
        for address in addresses:
            race.enter(address, self._compete, address)

    def _candidates(self) -> list[Address]:
        known = list(self._endpoints.addresses.values())
        some = random.sample(known, min(len(known), _SIDE_BY_SIDE))
        return list(dict.fromkeys([*some, *self._settings.bootstrap_servers]))

    def _asks_in_vain(self, query: Query) -> bool:
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
    async def _compete(self, race: Race, address: Address) -> None:
        """Connect and ask until the race is over. If this fails before the others have, try again."""
        pace, needs = self._endpoints.pace(address), needs_of(self._settings)
        while True:
            await pace.wait()
            pace.attempt()
            connection = self._endpoints.make_connection(address, needs=needs)
            try:
                await connection.open()
            except SetupFailed as error:
                failure = error
                if not self._opened:
                    failure = await look_again(error, self._settings, self._again(address))
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
                await self._ask_new_link(race, Link(connection, pace))

    def _again(self, address: Address) -> Connect:
        """For a second look at an address."""
        return lambda settings: self._endpoints.make_connection(address, settings=settings)

    async def _ask_new_link(self, race: Race, link: Link) -> None:
        self._endpoints.start_soon(link.serve, self._endpoints)  # only `serve` closes it
        try:
            await self._ask_link(race, link)
        finally:
            if race.winner is not link:
                link.connection.close()

    @trio.lowlevel.enable_ki_protection
    async def _ask_link(self, race: Race, link: Link) -> None:
        try:
            response = await link.ask(race.query, patience_of(self._settings))
        except ConnectionLost as error:  # also if it took too long: such a broker is left for good
            link.connection.close()
            await self._lost(race, link, error)
        else:
            self._endpoints.responded(link.pace)
            race.win(link, response)

    async def _lost(self, race: Race, link: Link, error: ConnectionLost) -> None:
        """The connection ended before a response came."""
        address = link.connection.address
        failure: SetupFailed | None = None
        if not self._opened and has_ended(error):
            failure = await look_for_login(self._settings, self._again(address))
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
