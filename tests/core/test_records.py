"""Record batches: what goes in comes out, by every codec; and the GIL is given up on the way."""

from __future__ import annotations

import pytest
from kafka import codec
from kafka.record.default_records import DefaultRecordBatch

from tests.core.helpers import Bench, message, messages
from trio_kprod._core._records import _MOST_NAMES, _NAMES, RECORDS_PER_YIELD, encode, encode_in_python
from trio_kprod._messages import HEADERS, KEY, TIMESTAMP_MS, VALUE, Entry, Headers

CODECS = {"none": 0, "gzip": 1, "snappy": 2, "lz4": 3, "zstd": 4}
LINES = [f'{{"id": {n * n * 7919}, "name": "{"adaeve"[n % 5 :]}"}}' for n in range(2000)]


def needs_codec(name: str) -> None:
    if name != "none" and not getattr(codec, f"has_{name}")():
        pytest.skip(f"no library for {name}")


@pytest.mark.parametrize("name", CODECS)
def test_records_come_out_as_they_went_in(name: str) -> None:
    needs_codec(name)
    entries: list[Entry] = [
        ("t", b"value" * 20, b"key", (("h", b"x"), ("h", None)), None, 1_700_000_000_123, 0, 0.0, None, 0),
        ("t", None, b"key", (), None, 0, 0, 0.0, None, 0),
        ("t", b"", None, (), None, 1_600_000_000_000, 0, 0.0, None, 0),
    ]
    data, uncompressed = encode(entries, producer_id=9, epoch=3, sequence=44, compression=CODECS[name])
    batch = DefaultRecordBatch(bytes(data))
    assert batch.validate_crc()
    assert batch.compression_type == CODECS[name]
    assert (batch.producer_id, batch.producer_epoch, batch.base_sequence) == (9, 3, 44)
    assert uncompressed >= 61
    assert [(one.value, one.key, list(one.headers), one.timestamp) for one in batch] == [
        (entry[VALUE], entry[KEY], list(entry[HEADERS]), entry[TIMESTAMP_MS]) for entry in entries
    ]


@pytest.mark.parametrize(
    ("name", "levels"), [("gzip", (1, 6, 9)), ("lz4", (0, 3, 12)), ("zstd", (-131_072, -5, 1, 22))]
)
def test_a_higher_level_compresses_more(name: str, levels: tuple[int, ...]) -> None:
    """Each level makes a smaller batch than the one before, and what comes out is the same."""
    needs_codec(name)
    entries = [message(line) for line in LINES]
    sizes = []
    for level in levels:
        data, _ = encode(
            entries, producer_id=1, epoch=0, sequence=0, compression=CODECS[name], compression_level=level
        )
        sizes.append(len(data))
        assert [record.value for record in DefaultRecordBatch(bytes(data))] == [
            line.encode() for line in LINES
        ]
    assert sizes == sorted(set(sizes), reverse=True)


@pytest.mark.parametrize("level", [6, -1])
def test_gzip_compresses_at_its_own_level(level: int) -> None:
    """6, as Java and librdkafka; kafka-python's function would take 9."""
    entries = [message(line) for line in LINES]
    own, at_level, hardest = (
        encode(entries, producer_id=1, epoch=0, sequence=0, compression=1, compression_level=one)[0]
        for one in (None, level, 9)
    )
    assert own == at_level
    assert len(own) > len(hardest)


def test_the_level_of_the_settings_reaches_the_batch() -> None:
    """All the way through a core."""
    sizes = []
    for level in (1, 9):
        bench = Bench(compression=1, compression_level=level, batch_size=100_000)
        bench.submit([message(str(n * 7919), partition=0, size=1) for n in range(3000)])
        sizes.append(len(bench.only().data))
    assert sizes[0] > sizes[1]


def test_names_of_headers_that_are_made_up_do_not_fill_the_memory() -> None:
    """They are remembered, but not for ever; and long ones not at all."""
    names = [f"header {number}" for number in range(2 * _MOST_NAMES)]
    names += ["long " * 100, "ä" * 64, "", names[0], names[-1]]
    entries: list[Entry] = [
        ("t", b"", None, ((name, None), (name, b"")), None, 5, 0, 0.0, None, 0) for name in names
    ]
    data, _ = encode(entries, producer_id=1, epoch=0, sequence=0)
    arrived = [list(record.headers) for record in DefaultRecordBatch(bytes(data))]
    assert arrived == [[(name, None), (name, b"")] for name in names]
    encode_in_python(entries, lambda: None)  # C, where it is in use, remembers nothing
    assert len(_NAMES) <= _MOST_NAMES
    assert max(map(len, _NAMES)) <= 64


SIZES = [None, 0, 1, 63, 64, 8127, 8128, 8191, 8192, 8193, 1_048_576]


@pytest.mark.parametrize("key", SIZES)
@pytest.mark.parametrize("headers", [(), (("name", None),), (("a", b""), ("b" * 8192, bytes(8192)))])
def test_every_mixture_of_sizes_comes_out(key: int | None, headers: Headers) -> None:
    """Small ones, those beyond the table of varints, and none."""
    sizes = [size for size in SIZES if (key, size) != (None, None)]
    bodies = [(None if size is None else bytes(size), None if key is None else bytes(key)) for size in sizes]
    entries: list[Entry] = [("t", value, key, headers, None, 5, 0, 0.0, None, 0) for value, key in bodies]
    data, uncompressed = encode(entries, producer_id=1, epoch=0, sequence=0)
    batch = DefaultRecordBatch(bytes(data))
    assert [(one.value, one.key) for one in batch] == bodies
    assert all(list(one.headers) == list(headers) for one in DefaultRecordBatch(bytes(data)))
    assert uncompressed == len(data)


@pytest.mark.parametrize("count", [1, RECORDS_PER_YIELD, RECORDS_PER_YIELD + 1, 3 * RECORDS_PER_YIELD])
def test_long_batches_let_other_threads_breathe(count: int) -> None:
    breaths: list[None] = []
    encode_in_python([message()] * count, lambda: breaths.append(None))
    assert len(breaths) == (count - 1) // RECORDS_PER_YIELD


def test_instruments_hear_of_compression() -> None:
    bench = Bench(compression=1, observed=True, batch_size=10_000)
    bench.submit(messages("aaaa", partition=0))
    [observed] = [one for one in bench.reports if getattr(one, "hook", "") == "compress"]
    payload = observed.payload  # type: ignore[union-attr]
    assert payload["message_count"] == 4
    assert payload["compressed_bytes"] == len(bench.only().data)
    assert payload["uncompressed_bytes"] > 61
