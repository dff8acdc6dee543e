"""Record batches of format v2 (KIP-98), encoded by kafka-python's builder."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import islice

from kafka.record.default_records import DefaultRecordBatchBuilder

from .._messages import Message

#: Encoding holds the GIL; after so many records `breathe` is called, so that other threads get their turn.
RECORDS_PER_BREATH = 500

_FORMAT = 2
_NO_LIMIT = 2**31 - 1


def encode(
    entries: Sequence[Message],
    *,
    producer_id: int,
    epoch: int,
    sequence: int,
    compression: int = 0,
    breathe: Callable[[], object] = lambda: None,
) -> tuple[bytearray, int]:
    """Encode messages as one batch; return its bytes, and their number before compression."""
    builder = DefaultRecordBatchBuilder(_FORMAT, compression, False, producer_id, epoch, sequence, _NO_LIMIT)
    append = builder.append
    records = enumerate(entries)
    while True:
        for offset, message in islice(records, RECORDS_PER_BREATH):
            append(offset, message.timestamp_ms, message.key, message.value, message.headers)
        if offset == len(entries) - 1:
            break
        breathe()
    uncompressed = builder.size()
    return builder.build(), uncompressed
