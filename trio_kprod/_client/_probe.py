"""Tries each step of the way to Kafka by itself, to find the one that fails.

The steps are those of the client: the name is looked up, a connection made, TLS, the broker's versions, SASL,
metadata; for the bootstrap servers, and for the addresses under which brokers say that they can be reached.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio
from kafka.protocol.metadata import MetadataRequest

from .._core import TopicMetadata, look_at, refusal
from .._errors import ConnectionLost
from ._any_broker import needs_of, patience_of
from ._connection import Connection, SetupFailed
from ._diagnosis import ADVERTISED, Diagnosis
from ._endpoints import name_of
from ._exchange import ApiExchange, Exchange
from ._protocol import LOWEST_METADATA_VERSION, ClusterMetadata, cluster_metadata, metadata_request
from ._second_look import Connect, look_again, look_for_login
from ._transport import Fence, TcpNetwork

if TYPE_CHECKING:
    from .._settings import Settings

#: What the steps of `Handshake.doing` are called here, in their order.
_STEPS = {"connecting": "TCP", "TLS handshake": "TLS", "ApiVersions": "Kafka"}


@dataclass(frozen=True, slots=True)
class Finding:
    """What one step found.

    Attributes:
        where (str): ``"host:port"``, or the topic.
        step (str): such as ``"DNS"`` or ``"TLS"``.
        ok (bool): whether it works.
        text (str): what was found.
        advice (str): what to do; empty if nothing is known, or needed.
    """

    where: str
    step: str
    ok: bool
    text: str
    advice: str = ""


class Probe:
    """Makes the steps one after the other, and tells each as it is made."""

    def __init__(self, settings: Settings, tell: Callable[[Finding], object]) -> None:
        self._settings = settings
        self._tell = tell
        self._fence = Fence()
        self._network = TcpNetwork(settings, self._fence)

    async def run(self, topic: str | None) -> None:
        """Look at every bootstrap server, every broker that one of them names, and the topic."""
        found: ClusterMetadata | None = None
        looked_at = set(self._settings.bootstrap_servers)
        for address in self._settings.bootstrap_servers:
            metadata = await self._look_at(address, topic)
            found = found or metadata
        if found is None:
            return
        for node, address in sorted(found.brokers.items()):
            if address not in looked_at:
                looked_at.add(address)
                await self._look_at(address, None, node)
        for told in found.topics:
            self._tell_topic(told, found)

    async def _look_at(
        self, address: tuple[str, int], topic: str | None, node: int | None = None
    ) -> ClusterMetadata | None:
        where = name_of(address)
        if not await self._look_up(where, address, node):
            return None
        needs = needs_of(self._settings)
        connection = Connection(address, self._settings, self._network, self._fence, node, needs=needs)
        try:
            await connection.open()
        except SetupFailed as error:
            failure = await look_again(error, self._settings, self._again(address))
            *made, failed = self._steps(connection.doing)
            self._tell_made(where, made)
            self._tell_failure(where, failed, failure, node)
            return None
        self._tell_made(where, self._steps(None))
        return await self._ask(where, connection, topic)

    def _again(self, address: tuple[str, int]) -> Connect:
        return lambda settings: Connection(address, settings, self._network, self._fence)

    def _tell_failure(self, where: str, step: str, failure: SetupFailed, node: int | None) -> None:
        advice = failure.advice + _advertised(node) if failure.advice else _advice(step, failure.what, node)
        self._tell(Finding(where, step, False, failure.what, advice))

    async def _look_up(self, where: str, address: tuple[str, int], node: int | None) -> bool:
        if self._settings.proxy_url is not None:
            return True  # the proxy does it
        try:
            found = await trio.socket.getaddrinfo(*address, type=trio.socket.SOCK_STREAM)
        except (OSError, OverflowError, ValueError) as error:  # the last two for a wrong name or port
            self._tell(Finding(where, "DNS", False, str(error), _advice("DNS", str(error), node)))
            return False
        self._tell(Finding(where, "DNS", True, ", ".join(dict.fromkeys(str(one[4][0]) for one in found))))
        return True

    def _steps(self, doing: str | None) -> list[str]:
        """The names of the steps up to this one; None stands for the last."""
        steps = ["TCP"]
        if self._settings.ssl_context is not None:
            steps.append("TLS")
        steps.append("Kafka")
        if self._settings.sasl_mechanism is not None:
            steps.append("SASL")
        last = steps[-1] if doing is None else _STEPS.get(doing, "SASL")
        return steps[: steps.index(last) + 1]

    def _tell_made(self, where: str, steps: list[str]) -> None:
        texts = {
            "TCP": "connected",
            "TLS": "the certificate is good for this name",
            "Kafka": "a broker responds",
            "SASL": f"the broker accepts the credentials ({self._settings.sasl_mechanism})",
        }
        for step in steps:
            self._tell(Finding(where, step, True, texts[step]))

    async def _ask(self, where: str, connection: Connection, topic: str | None) -> ClusterMetadata | None:
        responses: list[ClusterMetadata] = []
        error: ConnectionLost | None = None

        def on_response(_: Exchange, response: ClusterMetadata) -> None:
            responses.append(response)
            connection.close()

        topics = () if topic is None else (topic,)
        version = connection.usable_version(MetadataRequest, LOWEST_METADATA_VERSION)
        request: Any = metadata_request(topics, version, auto_create=False)
        timeout = patience_of(self._settings)
        connection.send(ApiExchange(request, timeout, on_response, read=cluster_metadata))
        try:
            await connection.serve()
        except ConnectionLost as lost:
            error = lost
        if not responses:
            failure = await look_for_login(self._settings, self._again(connection.address))
            if failure is None:
                failure = SetupFailed("", Diagnosis(str(error or "the connection ended")))
            self._tell_failure(where, "metadata", failure, None)
            return None
        brokers = ", ".join(map(name_of, responses[0].brokers.values()))
        self._tell(Finding(where, "metadata", True, f"the cluster's brokers: {brokers or 'none yet'}"))
        return responses[0]

    def _tell_topic(self, told: TopicMetadata, metadata: ClusterMetadata) -> None:
        where = f"topic {told.name!r}"
        if told.code or not told.partitions:
            error = refusal(told.code or 3)
            self._tell(Finding(where, "topic", False, str(error), look_at(error.code)))
            return
        lost = [one.index for one in told.partitions if one.leader not in metadata.brokers]
        if lost:
            text = f"no leader for partition {', '.join(map(str, lost))} of {len(told.partitions)}"
            self._tell(Finding(where, "topic", False, text, look_at(5)))
        else:
            self._tell(
                Finding(where, "topic", True, f"{len(told.partitions)} partitions, each with a leader")
            )


#: Where the failure itself does not say what to do.
_ADVICE = (
    ("DNS", "", "is the host name right? can this machine resolve it (containers have a DNS of their own)?"),
    ("TCP", "refused", "nothing listens there: is the broker up, and the port right?"),
    ("TCP", "", "no way there: a firewall, a security group, or another network?"),
    ("TLS", "", "is this a TLS port? then security_protocol is right, else use PLAINTEXT or SASL_PLAINTEXT"),
    ("Kafka", "", "is this a Kafka listener, and does it speak what security_protocol says?"),
    ("SASL", "", "are the credentials right, and known to this listener?"),
)

#: For a broker whose address another broker has told us.
_ADVERTISED = f"; {ADVERTISED}"


def _advice(step: str, text: str, node: int | None) -> str:
    matching = (advice for of, part, advice in _ADVICE if of == step and part in text)
    return next(matching, "") + _advertised(node)


def _advertised(node: int | None) -> str:
    return _ADVERTISED if node is not None else ""
