"""One partition's log, and what a broker remembers of the producers that wrote to it.

Batches are kept as the bytes that came, with only the base offset (and, for log-append time, the time
stamp) rewritten, as a real broker does; records are decoded when a test asks for them.

Producer state follows Apache Kafka: per producer id its epoch and the ranges of the last five batches.

- The same epoch and exactly one of the remembered ranges is a duplicate: it is acknowledged with the
  offset it got at first. Neither content nor checksum is compared. An older batch is out of order.
- A lower epoch is refused, also for a remembered range. A higher one starts at sequence 0.
- Without state any first sequence is taken: a broker cannot know what it has forgotten.
- Sequence numbers wrap from 2**31 - 1 to 0, also inside a batch.
"""

from __future__ import annotations

import struct
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from kafka.record.default_records import DefaultRecordBatch
from kafka.record.util import calc_crc32c

from ._codes import Code

#: How many batches of a producer a broker recognises when they come again.
REMEMBERED_BATCHES = 5

_SEQUENCES = 2**31
_BASE_OFFSET = struct.Struct(">q")
_CRC = struct.Struct(">I")
_ATTRIBUTES = struct.Struct(">h")
_MAX_TIMESTAMP = struct.Struct(">q")
_MAX_TIMESTAMP_AT = 35  # after base offset, length, epoch, magic, CRC, attributes, last delta, first time


@dataclass(frozen=True, slots=True)
class Record:
    """A record in a topic's log, as plain values."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Batch:
    """A record batch in a topic's log: what was agreed on it, without its records.

    `compression` is Kafka's number of the codec (0 none, 1 gzip, 2 snappy, 3 lz4, 4 zstd); `size` counts
    its bytes in the log. `producer_id`, `producer_epoch` and `base_sequence` are -1 if its producer is
    not idempotent.
    """

    topic: str
    partition: int
    base_offset: int
    count: int
    size: int
    compression: int
    producer_id: int
    producer_epoch: int
    base_sequence: int


class Verdict(NamedTuple):
    """What the producer state says to a batch; `offset` is that of the original if it is a duplicate."""

    code: int
    offset: int | None = None


_ACCEPTED = Verdict(Code.NONE)
_OUT_OF_ORDER = Verdict(Code.OUT_OF_ORDER_SEQUENCE_NUMBER)
_FENCED = Verdict(Code.INVALID_PRODUCER_EPOCH)


@dataclass(slots=True)
class ProducerState:
    """What one partition knows of one producer id."""

    epoch: int
    ranges: deque[tuple[int, int, int]] = field(  # (first sequence, last sequence, base offset)
        default_factory=lambda: deque(maxlen=REMEMBERED_BATCHES)
    )

    def judge(self, epoch: int, first: int, last: int) -> Verdict:
        """Whether a batch with these sequence numbers may be appended, is there already, or is refused."""
        if epoch < self.epoch:
            return _FENCED
        if epoch > self.epoch:
            return _ACCEPTED if first == 0 else _OUT_OF_ORDER
        for known_first, known_last, offset in self.ranges:
            if (known_first, known_last) == (first, last):
                return Verdict(Code.NONE, offset)
        expected = (self.ranges[-1][1] + 1) % _SEQUENCES
        return _ACCEPTED if first == expected else _OUT_OF_ORDER

    def appended(self, epoch: int, first: int, last: int, offset: int) -> None:
        """Remember a batch that is now in the log."""
        if epoch != self.epoch:
            self.epoch = epoch
            self.ranges.clear()
        self.ranges.append((first, last, offset))


class StoredBatch(NamedTuple):
    """A batch's bytes, and where they stand in the log."""

    base_offset: int
    last_offset: int
    max_timestamp: int
    data: bytes


class PartitionLog:
    """The batches of one partition in order, and the state of its producers."""

    def __init__(self) -> None:
        self.batches: list[StoredBatch] = []
        self.end_offset = 0
        self.producers: dict[int, ProducerState] = {}

    def judge(self, batch: Any) -> Verdict:
        """What the producer state says to a decoded batch header (kafka-python's `DefaultRecordBatch`)."""
        state = self.producers.get(batch.producer_id)
        if batch.producer_id < 0 or state is None:
            return _ACCEPTED
        return state.judge(batch.producer_epoch, batch.base_sequence, _last_sequence(batch))

    def append(self, batch: Any, data: bytes, append_time_ms: int | None = None) -> int:
        """Write a batch that was judged fit; returns its base offset."""
        offset = self.end_offset
        stored = _stamped(data, offset, append_time_ms)
        timestamp = batch.max_timestamp if append_time_ms is None else append_time_ms
        self.end_offset += batch.last_offset_delta + 1
        self.batches.append(StoredBatch(offset, self.end_offset - 1, timestamp, stored))
        if batch.producer_id >= 0:
            self._remember(batch, offset)
        return offset

    def _remember(self, batch: Any, offset: int) -> None:
        state = self.producers.setdefault(batch.producer_id, ProducerState(batch.producer_epoch))
        state.appended(batch.producer_epoch, batch.base_sequence, _last_sequence(batch), offset)

    def read(self, offset: int, max_bytes: int) -> bytes:
        """Whole batches from the one that holds `offset` on; at least one if there is any."""
        parts: list[bytes] = []
        size = 0
        start = bisect_left(self.batches, offset, key=lambda batch: batch.last_offset)
        for index in range(start, len(self.batches)):
            data = self.batches[index].data
            if parts and size + len(data) > max_bytes:
                break
            parts.append(data)
            size += len(data)
        return b"".join(parts)

    def records(self) -> Iterator[Any]:
        """Every record, decoded and decompressed, as kafka-python's record objects."""
        for batch in self.batches:
            yield from DefaultRecordBatch(batch.data)

    def headers(self) -> list[Any]:
        """Every batch's header, as kafka-python's batch objects."""
        return [DefaultRecordBatch(batch.data) for batch in self.batches]

    def first_since(self, timestamp_ms: int) -> tuple[int, int] | None:
        """Offset and timestamp of the first record that is not older, or None."""
        for batch in self.batches:
            if batch.max_timestamp < timestamp_ms:
                continue
            for record in DefaultRecordBatch(batch.data):
                if record.timestamp >= timestamp_ms:
                    return record.offset, record.timestamp
        return None


def _last_sequence(batch: Any) -> int:
    return int(batch.base_sequence + batch.last_offset_delta) % _SEQUENCES


def _stamped(data: bytes, offset: int, append_time_ms: int | None) -> bytes:
    stored = bytearray(data)
    _BASE_OFFSET.pack_into(stored, 0, offset)
    if append_time_ms is not None:
        _stamp_append_time(stored, append_time_ms)
    return bytes(stored)


def _stamp_append_time(stored: bytearray, append_time_ms: int) -> None:
    # The checksum covers everything from the attributes on, so compute it again; the offset is outside.
    at = DefaultRecordBatch.ATTRIBUTES_OFFSET
    (attributes,) = _ATTRIBUTES.unpack_from(stored, at)
    _ATTRIBUTES.pack_into(stored, at, attributes | DefaultRecordBatch.TIMESTAMP_TYPE_MASK)
    _MAX_TIMESTAMP.pack_into(stored, _MAX_TIMESTAMP_AT, append_time_ms)
    crc = calc_crc32c(memoryview(stored)[at:])
    _CRC.pack_into(stored, DefaultRecordBatch.CRC_OFFSET, crc)
