"""Record batches of format v2 (KIP-98), encoded in one pass.

kafka-python's own builder appends a record at a time, in 1.2 µs or more; this does it in a quarter of that,
which is most of what a message costs us. `trio_kprod_speedups`, where it is installed, makes the same bytes
in a tenth of that. The checksum and most codecs are kafka-python's.

A batch is a header and records. Integers in records are zigzag varints; nearly all of them are small, so
they come from a table::

    length | attributes = 0 | timestamp delta | offset delta | key | value | headers
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Callable, Sequence

import kafka.codec
from kafka.record.util import calc_crc32c

from .._messages import BATCH_OVERHEAD, TIMESTAMP_MS, Entry, Headers
from .._speedups import compiled

#: Encoding holds the GIL; after this number of records `yield_gil` is called, so that other threads get
#: their turn.
RECORDS_PER_YIELD = 500

_GZIP_LEVEL = 6  # as zlib itself, Java and librdkafka have it; kafka-python's 9 takes three times as long
_GZIP_FORMAT = 31  # zlib's largest window, 15, and 16 for a header and trailer of gzip


def _gzip(records: bytes, level: int = _GZIP_LEVEL) -> bytes:
    compressor = zlib.compressobj(level, zlib.DEFLATED, _GZIP_FORMAT)
    return compressor.compress(records) + compressor.flush()


#: Codecs by Kafka's numbers, which also are bits 0-2 of a batch's attributes.
CODECS: dict[int, Callable[[bytes], bytes]] = {
    1: _gzip,
    2: kafka.codec.snappy_encode,
    3: kafka.codec.lz4_encode,
    4: kafka.codec.zstd_encode,
}


def _zstd(records: bytes, level: int) -> bytes:
    import zstandard

    compressed: bytes = zstandard.ZstdCompressor(level=level).compress(records)
    return compressed


#: The same with a level. kafka-python's function for zstd takes none.
CODECS_WITH_LEVELS: dict[int, Callable[[bytes, int], bytes]] = {
    1: _gzip,
    3: lambda records, level: kafka.codec.lz4_encode(records, compression_level=level),
    4: _zstd,
}

_FORMAT = 2

# base offset, length, leader epoch, format and checksum; the checksum is that of all behind it:
_UNCHECKED = struct.Struct(">qiibI")
# attributes, last offset delta, first and maximal timestamp, producer id, epoch, sequence, number of records
_CHECKED = struct.Struct(">hiqqqhii")
_HEADER_YET = bytes(BATCH_OVERHEAD)
_LENGTH_COUNTS_FROM = 12  # what stands behind the length itself
_BASE_OFFSET = 0  # both are the broker's to give
_LEADER_EPOCH = -1

# Names of headers repeat, as keys do in `_partitioners`. A bounded number of them is remembered.
_MOST_NAMES = 1_000
_LONGEST_NAME = 64


def _encode_varint(number: int) -> bytes:
    rest = (number << 1) ^ (number >> 63)
    encoded = bytearray()
    while rest > 0x7F:
        encoded.append(rest & 0x7F | 0x80)
        rest >>= 7
    encoded.append(rest)
    return bytes(encoded)


class _Varints(dict[int, bytes]):
    """Zigzag varints of all numbers. It holds the small ones, and encodes others when they are asked for."""

    def __missing__(self, number: int) -> bytes:
        return _encode_varint(number)


class _Names(dict[str, bytes]):
    """Names of headers, encoded with their length. It remembers those that were asked for lately."""

    def __missing__(self, name: str) -> bytes:
        encoded = name.encode()
        framed = _VARINTS[len(encoded)] + encoded
        if len(name) <= _LONGEST_NAME:
            if len(self) >= _MOST_NAMES:
                self.clear()
            self[name] = framed
        return framed


_SMALL = tuple(_encode_varint(number) for number in range(8192))  # the quickest to look up
_VARINTS = _Varints(enumerate(_SMALL))
_NAMES = _Names()
_NULL = _encode_varint(-1)
_ZERO = _encode_varint(0)
_SHORT = len(_SMALL) - 64  # the length of a record with a value shorter than this is a small number as well


def _varints(start: int, stop: int) -> Sequence[bytes]:
    return _SMALL[start:stop] if stop <= len(_SMALL) else [_VARINTS[each] for each in range(start, stop)]


def encode(
    entries: Sequence[Entry],
    *,
    producer_id: int,
    epoch: int,
    sequence: int,
    compression: int = 0,
    compression_level: int | None = None,
    yield_gil: Callable[[], object] = lambda: None,
) -> tuple[bytearray, int]:
    """Encode messages as one batch; return its bytes, and their number without compression."""
    batch, latest_timestamp = _encode_all(entries, yield_gil)
    uncompressed = len(batch)
    if compression:
        compression, batch = _compress(compression, compression_level, batch)
    _CHECKED.pack_into(
        batch,
        _UNCHECKED.size,
        compression,
        len(entries) - 1,
        entries[0][TIMESTAMP_MS],
        latest_timestamp,
        producer_id,
        epoch,
        sequence,
        len(entries),
    )
    return _finish(batch), uncompressed


def encode_in_python(entries: Sequence[Entry], yield_gil: Callable[[], object]) -> tuple[bytearray, int]:
    """All records of a batch, behind room for its header; and the latest of their time stamps."""
    parts = [_HEADER_YET]
    first_timestamp = latest_timestamp = entries[0][TIMESTAMP_MS]
    for start in range(0, len(entries), RECORDS_PER_YIELD):
        if start:
            yield_gil()
        latest = _encode_records(entries[start : start + RECORDS_PER_YIELD], start, first_timestamp, parts)
        latest_timestamp = max(latest_timestamp, latest)
    return bytearray().join(parts), latest_timestamp


def encode_compiled(entries: Sequence[Entry], _: Callable[[], object]) -> tuple[bytearray, int]:
    """The same in one call, so quick that other threads need no turn in between. For large batches it gives
    up the GIL."""
    batch: tuple[bytearray, int] = compiled.encode_records(entries, BATCH_OVERHEAD)
    return batch


_encode_all = encode_in_python if compiled is None else encode_compiled


def _compress(compression: int, level: int | None, batch: bytearray) -> tuple[int, bytearray]:
    records = bytes(memoryview(batch)[BATCH_OVERHEAD:])
    if level is None:
        compressed = CODECS[compression](records)
    else:
        compressed = CODECS_WITH_LEVELS[compression](records, level)
    if len(compressed) < len(records):
        return compression, bytearray().join((_HEADER_YET, compressed))
    return 0, batch


def _finish(batch: bytearray) -> bytearray:
    """Fill in the length and the checksum."""
    with memoryview(batch)[_UNCHECKED.size :] as checked:
        checksum = calc_crc32c(checked)
    length = len(batch) - _LENGTH_COUNTS_FROM
    _UNCHECKED.pack_into(batch, 0, _BASE_OFFSET, length, _LEADER_EPOCH, _FORMAT, checksum)
    return batch


def _encode_records(
    entries: Sequence[Entry], first_offset: int, first_timestamp: int, parts: list[bytes]
) -> int:
    """Append the encoded records to `parts`, return their latest time stamp."""
    add = parts.append
    small, varints = _SMALL, _VARINTS
    latest = timestamp = first_timestamp
    delta = _ZERO
    offsets = _varints(first_offset, first_offset + len(entries))
    for (_, value, key, headers, _, stamped, _, _, _, _), offset in zip(entries, offsets, strict=True):
        if stamped != timestamp:  # neighbours mostly share it
            timestamp = stamped
            delta = varints[timestamp - first_timestamp]
            latest = max(latest, timestamp)
        if key is None and value is not None and len(value) < _SHORT and not headers:
            record = b"\0%b%b\1%b%b\0" % (delta, offset, small[len(value)], value)
            add(small[len(record)])
        else:
            behind = _encode_headers(headers) if headers else _ZERO
            if key is None:
                assert value is not None
                record = b"\0%b%b%b%b%b%b" % (delta, offset, _NULL, varints[len(value)], value, behind)
            elif value is None:
                record = b"\0%b%b%b%b%b%b" % (delta, offset, varints[len(key)], key, _NULL, behind)
            else:
                sizes = varints[len(key)], varints[len(value)]
                record = b"\0%b%b%b%b%b%b%b" % (delta, offset, sizes[0], key, sizes[1], value, behind)
            add(varints[len(record)])
        add(record)
    return latest


def _encode_headers(headers: Headers) -> bytes:
    parts = [_VARINTS[len(headers)]]
    for name, value in headers:
        if value is None:
            parts += _NAMES[name], _NULL
        else:
            parts += _NAMES[name], _VARINTS[len(value)], value
    return b"".join(parts)
