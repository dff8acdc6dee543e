"""Produce requests and their responses, in bytes.

One message that travels alone costs as much as a thousand in one batch, and kafka-python's classes take a
third of that for making its request and for reading the response. So this module encodes requests itself,
and decodes responses that say nothing but "written". Every other response, and any with a byte that is not
expected here, is left to kafka-python's classes, so that its meaning is decided in one place.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from struct import Struct
from typing import TYPE_CHECKING, Any

from .._core import NO_TOPIC_ID, PartitionResponse, Reaction, row
from ._exchange import Exchange
from ._protocol import OFFSET_LIMIT, TOPIC_IDS, ProduceOutcome, decode_produce

if TYPE_CHECKING:
    from .._core import Batch, Request, Topic

API_KEY = 0

#: The lowest is the first with record batches of format v2, the only ones that we write (KIP-98, Kafka 0.11).
LOWEST_VERSION, HIGHEST_VERSION = 3, 13

#: The first version in which a broker takes zstd (KIP-110, Kafka 2.1), and Kafka's number for that codec.
_ZSTD_VERSION, _ZSTD = 7, 4

#: The first versions whose responses have a log start offset; have errors of records; and are "flexible",
#: that is with shorter lengths and room for tags (KIP-482).
_LOG_START, _RECORD_ERRORS, _FLEXIBLE = 5, 8, 9


def lowest_version(compression: int) -> int:
    """The first version that takes what is compressed by this codec (Kafka's number; 0 for none)."""
    return _ZSTD_VERSION if compression == _ZSTD else LOWEST_VERSION


#: A broker gives up waiting for replicas after this share of the time that we wait for its response.
_BROKER_SHARE = 0.8

_int32 = Struct(">i")
_request_header = Struct(">hhih")  # API key, version, correlation id, length of the client id
_acks_and_timeout = Struct(">hi")


class _Classic:
    """Lengths as in versions up to 8."""

    no_string = b"\xff\xff"
    no_tags = b""
    count = data_length = staticmethod(_int32.pack)

    @staticmethod
    def string(text: bytes) -> bytes:
        return len(text).to_bytes(2, "big") + text

    @staticmethod
    def string_end(frame: bytes, at: int) -> int:
        return at + 2 + int.from_bytes(frame[at : at + 2], "big")


class _Flexible:
    """Lengths as in versions from 9 on: COMPACT ones (KIP-482), the length plus one as an unsigned varint."""

    no_string = b"\0"
    no_tags = b"\0"

    @staticmethod
    def count(number: int) -> bytes:
        number += 1
        if number < 0x80:
            return number.to_bytes(1, "big")
        digits = bytearray()
        while number >= 0x80:
            digits.append(number & 0x7F | 0x80)
            number >>= 7
        digits.append(number)
        return bytes(digits)

    data_length = count

    @staticmethod
    def string(text: bytes) -> bytes:
        return _Flexible.count(len(text)) + text

    @staticmethod
    def string_end(frame: bytes, at: int) -> int:
        """Names of topics are short: two digits at most."""
        if frame[at] < 0x80:
            return at + frame[at]
        return at + 1 + (frame[at] & 0x7F | frame[at + 1] << 7)


class ProduceExchange(Exchange):
    """A produce request with the batches of `request`, and its response.

    It is put together when its write starts: until then the core may take batches out of `request`. Once it
    is written, it knows the names and indexes of its partitions and nothing of their bytes.

    The ids of its topics are those of its creation. If a topic is deleted and created again before the write
    starts, its batches, which continue the old log, must not become the first of the new one.

    Args:
        request (Request): the core's.
        version (int): the highest that the broker takes.
        acks (int): how many replicas the broker waits for.
        timeout (float): how long we wait for the response.
        started_at (float): when it was queued.
    """

    __slots__ = ("_acks", "_ids", "_lengths", "_message_count", "_topics", "request", "started_at", "version")

    name = "Produce"

    def __init__(
        self,
        request: Request,
        version: int,
        acks: int,
        timeout: float,
        on_response: Callable[[ProduceExchange, ProduceOutcome], object],
        *,
        on_sent: Callable[[ProduceExchange], object] | None = None,
        started_at: float = 0.0,
    ) -> None:
        super().__init__(timeout, on_response, on_sent=on_sent, expects_response=acks != 0)
        self.request = request
        self.version = version
        self.started_at = started_at
        self._message_count: int | None = None
        self._ids = {batch.partition.topic: batch.partition.topic.id for batch in request.batches}
        self._acks = acks
        self._lengths: type[_Classic | _Flexible] = _Classic
        self._topics: dict[bytes, tuple[Topic, list[int]]] = {}

    @property
    def write_started(self) -> bool:
        return self.request.write_started

    @write_started.setter
    def write_started(self, started: bool) -> None:
        self.request.write_started = started

    @property
    def is_empty(self) -> bool:
        return not self.request.batches

    @property
    def message_count(self) -> int:
        """How many messages it carries. Once its write has started, that number does not change."""
        if self._message_count is None:
            return sum(len(batch.entries) for batch in self.request.batches)
        return self._message_count

    def acknowledged(self, responses: Mapping[tuple[str, int], PartitionResponse]) -> int:
        """How many of its messages these responses acknowledge. To be called before the core gets them."""
        written = {
            where for where, response in responses.items() if row(response.code).reaction is Reaction.WRITTEN
        }
        return sum(
            len(batch.entries)
            for batch in self.request.batches
            if (batch.partition.topic.name, batch.partition.index) in written
        )

    def _name(self, topic: Topic) -> bytes:
        """How this version names a topic, in bytes."""
        if self.version >= TOPIC_IDS:
            return self._ids[topic].bytes
        return self._lengths.string(topic.name.encode())

    def _is_same(self, topic: Topic) -> bool:
        """Whether the topic is still the one that the request was made for."""
        return self.version < TOPIC_IDS or topic.id == self._ids[topic]

    def encode(self, client_id: str) -> bytes:
        self._message_count = self.message_count
        by_topic: dict[Topic, list[Batch]] = {}
        for batch in self.request.batches:
            by_topic.setdefault(batch.partition.topic, []).append(batch)
        if self.version >= TOPIC_IDS and any(self._ids[topic] == NO_TOPIC_ID for topic in by_topic):
            self.version = TOPIC_IDS - 1
        self._lengths = lengths = _Flexible if self.version >= _FLEXIBLE else _Classic
        client = client_id.encode()
        header = _request_header.pack(API_KEY, self.version, self.correlation_id, len(client))
        how = _acks_and_timeout.pack(self._acks, max(1, int(self.timeout * 1000 * _BROKER_SHARE)))
        parts: list[bytes | bytearray] = [b"", header, client, lengths.no_tags, lengths.no_string, how]
        parts.append(lengths.count(len(by_topic)))
        for topic, batches in by_topic.items():
            name = self._name(topic)
            self._topics[name] = topic, [batch.partition.index for batch in batches]
            parts += (name, lengths.count(len(batches)))
            for batch in batches:
                data = batch.data or b""
                parts += (_int32.pack(batch.partition.index), lengths.data_length(len(data)), data)
                parts.append(lengths.no_tags)
            parts.append(lengths.no_tags)
        parts.append(lengths.no_tags)
        parts[0] = _int32.pack(sum(map(len, parts)))
        return b"".join(parts)

    def decode(self, frame: bytes) -> tuple[int, Any]:
        plain = self.read_plain(frame)
        if plain is not None:
            responses, throttle_ms = plain
            return throttle_ms, ProduceOutcome(responses, {})
        names = {self._ids[topic]: topic.name for topic, _ in self._topics.values() if self._is_same(topic)}
        return decode_produce(frame, self.version, names)

    def read_plain(self, frame: bytes) -> tuple[Mapping[tuple[str, int], PartitionResponse], int] | None:
        """The responses in a frame and the throttle time, if all is written and the frame says nothing else.

        None if it may say something else. The order of topics and partitions is the broker's.
        """
        lengths = self._lengths
        one = _PARTITIONS[self.version]
        end = _PARTITION_ENDS[self.version]
        responses: dict[tuple[str, int], PartitionResponse] = {}
        beginning = lengths.no_tags + lengths.count(len(self._topics))
        if not frame.startswith(beginning, 4):  # behind the correlation id
            return None
        at = 4 + len(beginning)
        for _ in self._topics:
            if len(frame) < at + 16:  # no topic takes less
                return None
            name_end = at + 16 if self.version >= TOPIC_IDS else lengths.string_end(frame, at)
            topic, indexes = self._topics.get(frame[at:name_end], (None, ()))
            if topic is None or not self._is_same(topic):
                return None
            if not frame.startswith(count := lengths.count(len(indexes)), name_end):
                return None
            at = name_end + len(count)
            if len(frame) < at + one.size * len(indexes):
                return None
            for _ in indexes:
                index, code, offset, timestamp_ms, *_, rest = one.unpack_from(frame, at)
                where = topic.name, index
                if code or rest != end or not -1 <= offset < OFFSET_LIMIT or where in responses:
                    return None
                responses[where] = PartitionResponse(0, offset, timestamp_ms)
                at += one.size
            if not frame.startswith(lengths.no_tags, at):
                return None
            at += len(lengths.no_tags)
        if len(frame) != at + 4 + len(lengths.no_tags) or not frame.endswith(lengths.no_tags):
            return None
        return responses, _int32.unpack_from(frame, at)[0]


def _partition_end(version: int) -> bytes:
    """What ends the response for a partition: no errors of records, no text, no tags."""
    if version >= _FLEXIBLE:
        return b"\x01\x00\x00"
    return b"\0\0\0\0\xff\xff" if version >= _RECORD_ERRORS else b""


#: By version: what ends the response for one partition, and the whole of it, which is index, error code, base
#: offset, time stamp, log start offset and that end.
_PARTITION_ENDS = {version: _partition_end(version) for version in range(LOWEST_VERSION, HIGHEST_VERSION + 1)}
_PARTITIONS = {
    version: Struct(f">ihqq{'q' * (version >= _LOG_START)}{len(end)}s")
    for version, end in _PARTITION_ENDS.items()
}
