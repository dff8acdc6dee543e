"""A bare client for tests of the embedded broker: record batches by hand, requests one by one."""

from __future__ import annotations

import struct
from collections.abc import Sequence
from typing import Any

import trio
from kafka.protocol.metadata import MetadataRequest, MetadataResponse
from kafka.protocol.producer import ProduceRequest, ProduceResponse
from kafka.record.default_records import DefaultRecordBatchBuilder


def batch(
    values: Sequence[bytes | None] = (b"v",),
    *,
    key: bytes | None = None,
    producer_id: int = -1,
    epoch: int = -1,
    sequence: int = -1,
    compression: int = 0,
    timestamp_ms: int = 1_700_000_000_000,
) -> bytes:
    """A record batch of format v2."""
    builder = DefaultRecordBatchBuilder(2, compression, False, producer_id, epoch, sequence, 1 << 30)
    for index, value in enumerate(values):
        builder.append(index, timestamp_ms, key, value, [])
    return bytes(builder.build())


def produce_request(
    *entries: tuple[str, int, bytes | None], version: int = 9, acks: int = -1, topic_id: Any = None
) -> Any:
    """A Produce request; an entry is topic, partition and batch."""
    groups = [
        ProduceRequest.TopicProduceData(
            version=version,
            name=topic,
            topic_id=topic_id,
            partition_data=[
                ProduceRequest.TopicProduceData.PartitionProduceData(
                    version=version, index=index, records=data
                )
            ],
        )
        for topic, index, data in entries
    ]
    return ProduceRequest(version=version, acks=acks, timeout_ms=1000, topic_data=groups)


class Peer:
    """A client on one stream."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._received = bytearray()
        self._correlation_id = 0

    async def send(self, request: Any) -> None:
        """Send a request, without waiting for its answer."""
        self._correlation_id += 1
        request.with_header(correlation_id=self._correlation_id, client_id="peer")
        await self.stream.send_all(bytes(request.encode(header=True, framed=True)))

    async def receive(self, response: Any, version: int) -> Any:
        """The next answer; None at the end of the stream."""
        size = await self._exactly(4)
        if size is None:
            return None
        frame = await self._exactly(*struct.unpack(">i", size))
        answer = response.decode(frame, version=version, header=True)
        assert answer.header.correlation_id <= self._correlation_id
        return answer

    async def call(self, request: Any, response: Any) -> Any:
        """Send a request and give its answer; None if the connection was closed instead."""
        try:
            await self.send(request)
        except trio.BrokenResourceError:
            return None
        return await self.receive(response, request.API_VERSION)

    async def metadata(self, *topics: str, version: int = 9, create: bool = True) -> Any:
        """Ask for topics by name."""
        asked = [MetadataRequest.MetadataRequestTopic(version=version, name=name) for name in topics]
        request = MetadataRequest(version=version, topics=asked, allow_auto_topic_creation=create)
        return await self.call(request, MetadataResponse)

    async def produce(
        self, topic: str, data: bytes | None, *, partition: int = 0, version: int = 9, topic_id: Any = None
    ) -> Any:
        """Produce one batch; gives the partition's answer, or None if the connection was closed instead."""
        request = produce_request((topic, partition, data), version=version, topic_id=topic_id)
        answer = await self.call(request, ProduceResponse)
        return answer and answer.responses[0].partition_responses[0]

    async def _exactly(self, count: int) -> bytes | None:
        while len(self._received) < count:
            data = await self.stream.receive_some()
            if not data:
                return None
            self._received += data
        taken = bytes(self._received[:count])
        del self._received[:count]
        return taken
