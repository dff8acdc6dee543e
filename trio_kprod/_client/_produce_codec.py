"""Produce requests and the answers to them, in bytes.

One message that travels alone costs as much as a thousand in one batch, and kafka-python's classes take a
third of that for making its request and for reading the answer. So requests are put together here, and so
are answers taken apart that say nothing but "written". All other answers are left to kafka-python's classes,
and so is whatever is not exactly as it is expected here: what it means is decided in one place.
"""

from __future__ import annotations

from collections.abc import Mapping
from struct import Struct
from typing import TYPE_CHECKING

from .._core import NO_TOPIC_ID, PartitionResponse

if TYPE_CHECKING:
    from .._core import Batch, Request, Topic

API_KEY = 0

#: From the lowest version with record batches of format v2, which is all that we write (KIP-98, Kafka 0.11).
LOWEST_VERSION, HIGHEST_VERSION = 3, 13

#: The first versions whose answers have a log start offset; have errors of records; that are "flexible", with
#: shorter lengths and room for tags (KIP-482); and that name topics by their ids (KIP-516).
_LOG_START, _RECORD_ERRORS, _FLEXIBLE, TOPIC_IDS = 5, 8, 9, 13

#: No log gets there: offsets are 64 bits wide, and the records of one batch have to fit in.
OFFSET_LIMIT = 2**63 - 2**31

_int32 = Struct(">i")
_request_header = Struct(">hhih")  # API key, version, correlation id, length of the client id
_acks_and_timeout = Struct(">hi")


class _Classic:
    """Lengths as until version 8."""

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
    """Lengths as from version 9 on: one more than they are, in bytes of seven bits, the lowest first."""

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


class ProduceMessage:
    """A produce request with every batch of `request`.

    Args:
        request (Request): the core's.
        version (int): the highest that the broker takes.
        acks, timeout_ms (int): how many replicas the broker shall wait for, and for how long.
    """

    __slots__ = ("_acks", "_lengths", "_timeout_ms", "_topics", "request", "version")

    def __init__(self, request: Request, version: int, acks: int, timeout_ms: int) -> None:
        self.request = request
        self._acks = acks
        self._timeout_ms = timeout_ms
        by_topic: dict[Topic, list[Batch]] = {}
        for batch in request.batches:
            by_topic.setdefault(batch.partition.topic, []).append(batch)
        if version >= TOPIC_IDS and any(topic.id == NO_TOPIC_ID for topic in by_topic):
            version = TOPIC_IDS - 1
        self.version = version
        self._lengths = _Flexible if version >= _FLEXIBLE else _Classic
        self._topics = {self._name(topic): (topic, batches) for topic, batches in by_topic.items()}

    def _name(self, topic: Topic) -> bytes:
        """How this version names a topic, in bytes."""
        return topic.id.bytes if self.version >= TOPIC_IDS else self._lengths.string(topic.name.encode())

    @property
    def expects_answer(self) -> bool:
        return self._acks != 0

    def encode(self, correlation_id: int, client_id: str) -> bytes:
        """The whole frame."""
        lengths = self._lengths
        client = client_id.encode()
        header = _request_header.pack(API_KEY, self.version, correlation_id, len(client))
        how = _acks_and_timeout.pack(self._acks, self._timeout_ms)
        parts: list[bytes | bytearray] = [b"", header, client, lengths.no_tags, lengths.no_string, how]
        parts.append(lengths.count(len(self._topics)))
        for name, (_, batches) in self._topics.items():
            parts += (name, lengths.count(len(batches)))
            for batch in batches:
                data = batch.data or b""
                parts += (_int32.pack(batch.partition.index), lengths.data_length(len(data)), data)
                parts.append(lengths.no_tags)
            parts.append(lengths.no_tags)
        parts.append(lengths.no_tags)
        parts[0] = _int32.pack(sum(map(len, parts)))
        return b"".join(parts)

    def read_plain(self, frame: bytes) -> tuple[Mapping[tuple[str, int], PartitionResponse], int] | None:
        """The answers in a frame and the throttle time, if all is written and the frame says nothing else.

        None if it may say anything else. The order of topics and partitions is the broker's.
        """
        lengths = self._lengths
        one = _ANSWERS[self.version]
        end = _ANSWER_ENDS[self.version]
        answers: dict[tuple[str, int], PartitionResponse] = {}
        beginning = lengths.no_tags + lengths.count(len(self._topics))
        if not frame.startswith(beginning, 4):  # behind the correlation id
            return None
        at = 4 + len(beginning)
        for _ in self._topics:
            if len(frame) < at + 16:  # no topic takes less
                return None
            name_end = at + 16 if self.version >= TOPIC_IDS else lengths.string_end(frame, at)
            topic, batches = self._topics.get(frame[at:name_end], (None, ()))
            # A topic that has another id by now was deleted and made anew.
            if topic is None or self._name(topic) != frame[at:name_end]:
                return None
            if not frame.startswith(count := lengths.count(len(batches)), name_end):
                return None
            at = name_end + len(count)
            if len(frame) < at + one.size * len(batches):
                return None
            for _ in batches:
                index, code, offset, timestamp_ms, *_, rest = one.unpack_from(frame, at)
                where = topic.name, index
                if code or rest != end or not -1 <= offset < OFFSET_LIMIT or where in answers:
                    return None
                answers[where] = PartitionResponse(0, offset, timestamp_ms)
                at += one.size
            if not frame.startswith(lengths.no_tags, at):
                return None
            at += len(lengths.no_tags)
        if len(frame) != at + 4 + len(lengths.no_tags) or not frame.endswith(lengths.no_tags):
            return None
        return answers, _int32.unpack_from(frame, at)[0]


def _answer_end(version: int) -> bytes:
    """What ends the answer for a partition: no errors of records, no text, no tags."""
    if version >= _FLEXIBLE:
        return b"\x01\x00\x00"
    return b"\0\0\0\0\xff\xff" if version >= _RECORD_ERRORS else b""


#: By version: what ends the answer for one partition, and the whole of it, which is index, error code, base
#: offset, time stamp, log start offset and that end.
_ANSWER_ENDS = {version: _answer_end(version) for version in range(LOWEST_VERSION, HIGHEST_VERSION + 1)}
_ANSWERS = {
    version: Struct(f">ihqq{'q' * (version >= _LOG_START)}{len(end)}s")
    for version, end in _ANSWER_ENDS.items()
}
