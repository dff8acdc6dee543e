"""The same broker without thread or socket: connections are pairs of in-memory streams in one trio loop.

With it a producer runs in virtual time: everything waits by trio's clock, so `autojump_clock` works.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping

import trio
import trio.testing

from ._cluster import MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES, Address, Options
from ._controls import BrokerControls
from ._serve import serve_connection

_ADDRESS = Address("memory", 9092)


class MemoryBroker(BrokerControls):
    """A broker whose connections are made by a `MemoryNetwork`.

    Args:
        partitions: how many partitions an auto-created topic gets.
        auto_create_topics: whether a metadata request for a topic creates it.
        topics: names and partition counts of topics to begin with.
        sasl_users: passwords by user name; clients must authenticate.
        sasl_session_lifetime: seconds after which a client has to authenticate again (KIP-368).
        max_message_bytes: the largest batch taken, unless a topic has a limit of its own.
        max_request_bytes: a larger request ends its connection.
        max_versions: the highest version of a request to serve, by its name: ``{"Produce": 12}``.

    Raises:
        TypeError, ValueError: a setting makes no sense.
    """

    def __init__(
        self,
        *,
        partitions: int = 1,
        auto_create_topics: bool = True,
        topics: Mapping[str, int] | None = None,
        sasl_users: Mapping[str, str] | None = None,
        sasl_session_lifetime: float | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        max_request_bytes: int = MAX_REQUEST_BYTES,
        max_versions: Mapping[str, int] | None = None,
    ) -> None:
        options = Options(
            partitions=partitions,
            auto_create_topics=auto_create_topics,
            max_message_bytes=max_message_bytes,
            max_request_bytes=max_request_bytes,
            max_versions=max_versions,
            sasl_users=sasl_users,
            sasl_session_lifetime=sasl_session_lifetime,
        )
        super().__init__(options, _ADDRESS, topics)
        self._listening = True

    def __repr__(self) -> str:
        return f"<MemoryBroker {self.bootstrap_servers}, {self.connections} connections>"

    def stop_listening(self) -> None:
        """Refuse new connections; those that are open live on."""
        self._listening = False

    def start_listening(self) -> None:
        """Accept connections again."""
        self._listening = True

    def accepts(self, host: str, port: int) -> bool:
        """Whether the broker listens at an address: it does at the one that it advertises."""
        return self._listening and (host, port) == self._cluster.advertised

    async def serve(self, stream: trio.abc.Stream) -> None:
        """Serve one connection until it ends."""
        await serve_connection(self._cluster, stream, self._connections)


class MemoryNetwork:
    """Connects clients to a `MemoryBroker`; the broker's ends are served in the nursery given."""

    def __init__(self, broker: MemoryBroker, nursery: trio.Nursery) -> None:
        self._broker = broker
        self._nursery = nursery

    async def open_stream(self, host: str, port: int) -> trio.abc.Stream:
        """A connection to the broker. Raises ConnectionRefusedError if it does not listen there."""
        await trio.lowlevel.checkpoint()
        if not self._broker.accepts(host, port):
            reason = os.strerror(errno.ECONNREFUSED)
            raise ConnectionRefusedError(errno.ECONNREFUSED, f"{reason}: {Address(host, port)}")
        ours, theirs = trio.testing.memory_stream_pair()
        self._nursery.start_soon(self._broker.serve, theirs)
        return ours
