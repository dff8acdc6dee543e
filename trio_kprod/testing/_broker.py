"""The embedded broker: the Kafka protocol on a loopback port, out of memory, in a thread of its own."""

from __future__ import annotations

import ssl
from collections.abc import Mapping

import trio

from ._cluster import MAX_MESSAGE_BYTES, MAX_REQUEST_BYTES, Address, Options
from ._controls import BrokerControls
from ._serve import serve_connection
from ._server import Server


def open_broker(
    *,
    partitions: int = 1,
    auto_create_topics: bool = True,
    topics: Mapping[str, int] | None = None,
    host: str = "127.0.0.1",
    port: int = 0,
    advertised: tuple[str, int] | None = None,
    ssl_context: ssl.SSLContext | None = None,
    sasl_users: Mapping[str, str] | None = None,
    sasl_session_lifetime: float | None = None,
    max_message_bytes: int = MAX_MESSAGE_BYTES,
    max_request_bytes: int = MAX_REQUEST_BYTES,
    max_versions: Mapping[str, int] | None = None,
) -> Broker:
    """A broker for tests and examples: ``with open_broker() as broker:``, or ``async with``.

    Any Kafka client can use it: it speaks ApiVersions, Metadata, InitProducerId, Produce, ListOffsets,
    Fetch, CreateTopics, DeleteTopics and SASL. Assign consumers their partitions: there are no consumer
    groups, transactions or access rights. The broker forgets everything when the block ends.

    Args:
        partitions: how many partitions an auto-created topic gets.
        auto_create_topics: whether a metadata request for a topic creates it.
        topics: names and partition counts of topics to begin with.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.
        advertised: host and port that clients get instead of the real ones, such as those of a proxy in front
            of it. `open_proxy` sets this itself.
        ssl_context: a server's context; serves TLS with it.
        sasl_users: passwords by user name; clients must use PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512.
        sasl_session_lifetime: seconds after which a client has to authenticate again (KIP-368).
        max_message_bytes: the largest batch taken, unless a topic has a limit of its own.
        max_request_bytes: a larger request ends its connection.
        max_versions: the highest version of a request to serve, by its name: ``{"Produce": 12}``.

    Raises:
        TypeError, ValueError: a setting makes no sense.
        OSError: on entering, if it cannot listen there.
    """
    options = Options(
        partitions=partitions,
        auto_create_topics=auto_create_topics,
        max_message_bytes=max_message_bytes,
        max_request_bytes=max_request_bytes,
        max_versions=max_versions,
        sasl_users=sasl_users,
        sasl_session_lifetime=sasl_session_lifetime,
    )
    return Broker(options, Address(host, port), topics, advertised, ssl_context)


class Broker(BrokerControls, Server):
    """What `open_broker` gives. It can be entered once."""

    _kind = "broker"

    def __init__(
        self,
        options: Options,
        address: Address,
        topics: Mapping[str, int] | None,
        advertised: tuple[str, int] | None,
        ssl_context: ssl.SSLContext | None,
    ) -> None:
        BrokerControls.__init__(self, options, Address(*advertised) if advertised else address, topics)
        Server.__init__(self, address)
        self._advertises_itself = advertised is None
        self._ssl_context = ssl_context

    def __repr__(self) -> str:
        state = "running" if self._port else "not running"
        return f"<Broker {self._address}, {state}, {self.connections} connections>"

    def _began(self) -> None:
        if self._advertises_itself:
            self.advertise(*self._address)

    async def _serve(self, stream: trio.SocketStream) -> None:
        secured: trio.abc.Stream = stream
        if self._ssl_context is not None:
            secured = trio.SSLStream(stream, self._ssl_context, server_side=True)
        await serve_connection(self._cluster, secured, self._connections)
