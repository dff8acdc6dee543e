"""Several brokers in memory, some of which do what a test's script says, and a producer on them.

What brokers know and store is one `MemoryBroker`. Each node in front of it may be told to twist its
answers, to give others, or to keep silent; all else goes through unchanged, but that metadata speaks of
all nodes.
"""

from __future__ import annotations

import errno
import io
from collections import Counter
from collections.abc import Awaitable, Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import trio
import trio.testing
from kafka.protocol.metadata import MetadataResponse
from kafka.protocol.producer import ProduceResponse

from tests.scripted_peer import Peer
from trio_kprod._client import Client, LoopHost
from trio_kprod._producer import ProducerScope
from trio_kprod._settings._config import NAMED, make_settings
from trio_kprod.testing import MemoryBroker

Address = tuple[str, int]

_PartitionAnswer = ProduceResponse.TopicProduceResponse.PartitionProduceResponse


#: More connections than any test has a reason for. (In virtual time a storm would never end.)
_STORM = 2000


class Close(Exception):
    """Raised by a script: the connection ends here, after `last_words`."""

    def __init__(self, last_words: bytes = b"") -> None:
        self.last_words = last_words


@dataclass
class Asked:
    """One request that a node got."""

    node: Node
    request: Any
    frame: bytes
    _inner: Peer

    @property
    def api(self) -> str:
        return type(self.request).__name__.removesuffix("Request")

    async def store(self) -> None:
        """Do what is asked."""
        await self._inner.stream.send_all(framed(self.frame))

    async def good_frame(self) -> bytes:
        """What an honest broker answers."""
        await self.store()
        good = await self._inner.frame()
        if self.api == "Metadata":
            return self.encode(self.node.cluster.introduce(self.decode(good)))
        return good

    @property
    def led_elsewhere(self) -> bool:
        return self.api == "Produce" and not all(
            self.node.cluster.leads(self.node.id, partition.index)
            for topic in self.request.topic_data
            for partition in topic.partition_data
        )

    def not_leader(self) -> bytes:
        """What a broker answers that does not lead what it was sent; it knows who does (KIP-951)."""
        version = self.request.API_VERSION
        answers = [
            ProduceResponse.TopicProduceResponse(
                version=version,
                name=asked.name,
                topic_id=asked.topic_id,
                partition_responses=[self._hint(one.index) for one in asked.partition_data],
            )
            for asked in self.request.topic_data
        ]
        nodes = [
            ProduceResponse.NodeEndpoint(
                version=version, node_id=node.id, host=node.address[0], port=node.address[1], rack=None
            )
            for node in self.node.cluster.nodes.values()
        ]
        response = ProduceResponse(version=version, responses=answers)
        # A tagged field is sent only if its container names it.
        response.tags, response.node_endpoints = {"node_endpoints"}, nodes
        return self.encode(response)

    def _hint(self, partition: int) -> Any:
        version = self.request.API_VERSION
        leader, epoch = self.node.cluster.leader(partition)
        answer = _PartitionAnswer(version=version, index=partition, error_code=6, base_offset=-1)
        answer.tags = {"current_leader"}
        answer.current_leader = _PartitionAnswer.LeaderIdAndEpoch(
            version=version, leader_id=leader, leader_epoch=epoch
        )
        return answer

    async def good(self) -> Any:
        """The same, decoded; `encode` makes bytes of it again."""
        return self.decode(await self.good_frame())

    def decode(self, frame: bytes) -> Any:
        response_class = self.request.header.get_response_class()
        data = io.BytesIO(frame)
        response_class.parse_header(data)
        return response_class.decode(data, version=self.request.API_VERSION)

    def encode(self, response: Any) -> bytes:
        response.with_header(correlation_id=self.request.header.correlation_id)
        return bytes(response.encode(framed=False, header=True))


#: Returns the bytes to send, as they are; None for what an honest broker would send.
Script = Callable[[Asked], Awaitable["bytes | None"]]


@dataclass
class Node:
    """One broker."""

    cluster: ScriptedCluster
    id: int
    address: Address
    script: Script | None = None
    listening: bool = True
    accepted: int = 0
    connections: int = 0
    requests: Counter[str] = field(default_factory=Counter)
    _scopes: set[trio.CancelScope] = field(default_factory=set)

    def behave_like(self, script: Script | None) -> None:
        """From now on; None is an honest broker."""
        self.script = script
        self.accepted = 0

    async def serve(self, stream: trio.abc.Stream) -> None:
        self.accepted += 1
        self.connections += 1
        ours, theirs = trio.testing.memory_stream_pair()
        try:
            async with trio.open_nursery() as nursery, stream, ours:
                self._scopes.add(nursery.cancel_scope)
                nursery.start_soon(self.cluster.store.serve, theirs)
                await self._converse(Peer(stream), Peer(ours))
                nursery.cancel_scope.cancel()
        finally:
            self._scopes.discard(nursery.cancel_scope)
            self.connections -= 1

    async def _converse(self, peer: Peer, inner: Peer) -> None:
        with suppress(EOFError, trio.BrokenResourceError, trio.ClosedResourceError):
            try:
                while True:
                    request, frame = await peer.request_and_frame()
                    await peer.stream.send_all(await self._reply(Asked(self, request, frame, inner)))
            except Close as close:
                await peer.stream.send_all(close.last_words)

    async def _reply(self, asked: Asked) -> bytes:
        self.requests[asked.api] += 1
        reply: bytes | None = None if self.script is None else await self.script(asked)
        if reply is not None:
            return reply
        if asked.request.expect_response():
            return framed(asked.not_leader() if asked.led_elsewhere else await asked.good_frame())
        if asked.led_elsewhere:
            raise Close  # with acks=0, the only way to say so
        await asked.store()
        return b""

    def cut(self) -> None:
        """Close every connection."""
        for scope in self._scopes:
            scope.cancel()


class ScriptedCluster:
    """Nodes 1 to `nodes`; until `lead` says else, node ``p % nodes + 1`` leads partition p of each topic."""

    def __init__(self, nodes: int = 2, **options: Any) -> None:
        self.store = MemoryBroker(**{"partitions": nodes, **options})
        self.nodes = {number: Node(self, number, (f"node{number}", 9092)) for number in range(1, nodes + 1)}
        self.attempts: list[Address] = []  # to connect, wherever to
        self.stream_pair: Callable[[], tuple[trio.abc.Stream, trio.abc.Stream]]
        self.stream_pair = trio.testing.memory_stream_pair  # which takes any number of bytes
        self._leaders: dict[int, tuple[int, int]] = {}  # of a partition, in each topic: node and epoch
        self.nursery: trio.Nursery

    def introduce(self, metadata: Any) -> Any:
        """Have a metadata answer speak of all nodes."""
        version = metadata.API_VERSION
        metadata.brokers = [
            MetadataResponse.MetadataResponseBroker(
                version=version, node_id=node.id, host=node.address[0], port=node.address[1]
            )
            for node in self.nodes.values()
        ]
        for topic in metadata.topics:
            for partition in topic.partitions:
                if partition.leader_id >= 0:
                    leader, epoch = self.leader(partition.partition_index)
                    partition.leader_id, partition.leader_epoch = leader, epoch
        return metadata

    def leader(self, partition: int) -> tuple[int, int]:
        """The node that leads a partition of each topic, and the epoch of that."""
        return self._leaders.get(partition, (partition % len(self.nodes) + 1, 0))

    def lead(self, node: int, partition: int) -> None:
        """Have a node lead a partition of each topic; the one before refuses to."""
        _, epoch = self.leader(partition)
        self._leaders[partition] = (node, epoch + 1)

    def leads(self, node: int, partition: int) -> bool:
        return self.leader(partition)[0] == node

    async def open_stream(self, host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        self.attempts.append((host, port))
        assert len(self.attempts) < _STORM, "a storm of connections"
        for node in self.nodes.values():
            if node.address == (host, port) and node.listening:
                ours, theirs = self.stream_pair()
                self.nursery.start_soon(node.serve, theirs)
                return ours
        raise ConnectionRefusedError(errno.ECONNREFUSED, f"Connection refused: {host}:{port}")

    def values(self, topic: str = "t", partition: int | None = None) -> list[bytes | None]:
        """What is in the log."""
        records = self.store.records(topic)
        return [one.value for one in records if partition in (None, one.partition)]


class _Host(LoopHost):
    """Runs the client in the caller's loop, beside the brokers."""

    def __init__(self, cluster: ScriptedCluster) -> None:
        self._cluster = cluster

    async def run(self, main: Callable[[], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            self._cluster.nursery = nursery
            await main()
            nursery.cancel_scope.cancel()


def open_on(cluster: ScriptedCluster, *, bootstrap: Iterable[int] = (1,), **options: Any) -> ProducerScope:
    """A producer whose client runs in the caller's loop, on a scripted cluster."""
    servers = ["{}:{}".format(*cluster.nodes[number].address) for number in bootstrap]
    named = {name: value for name, value in options.items() if name in NAMED}
    client_config = {name: value for name, value in options.items() if name not in NAMED}
    settings = make_settings(servers, **named, client_config=client_config)
    host = _Host(cluster)
    client = Client(settings, host, cluster)
    return ProducerScope(settings, client, host)


def framed(body: bytes) -> bytes:
    return len(body).to_bytes(4, "big") + body
