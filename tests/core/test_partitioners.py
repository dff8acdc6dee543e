"""Where messages with a key go: as Java's producer puts them, or as a partitioner of the user's says."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import kafka.partitioner
import pytest

from tests.core.helpers import Bench, message
from trio_kprod._core._partitioners import adapt, hash_in_python, hash_key, murmur2

#: From Kafka's own UtilsTest.testMurmur2, signed 32 bit as there.
VECTORS = {
    b"21": -973932308,
    b"foobar": -790332482,
    b"a-little-bit-long-string": -985981536,
    b"a-little-bit-longer-string": -1486304829,
    b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8": -58897971,
    b"abc": 479470107,
}


@pytest.mark.parametrize("key", VECTORS)
def test_keys_hash_as_in_java(key: bytes) -> None:
    assert hash_key(key) == VECTORS[key] & 0x7FFFFFFF


def test_hashes_are_those_of_kafka_python() -> None:
    """Of every length, with bits of every kind at every place."""
    at_random = random.Random(5)
    for size in (*range(131), 1_000, 4_099):
        keys = [bytes(size), b"\xff" * size, *(at_random.randbytes(size) for _ in range(20))]
        expected = [kafka.partitioner.murmur2(key) for key in keys]
        assert [murmur2(key) for key in keys] == expected
        for hash_it in (hash_in_python, hash_key):  # the second is in C, if that is in use
            assert [hash_it(key) for key in keys] == [digest & 0x7FFFFFFF for digest in expected]


def test_a_key_too_long_for_the_cache_hashes_all_the_same() -> None:
    assert hash_key(b"x" * 1000) == hash_key(b"x" * 1000)


def test_a_key_goes_where_java_puts_it() -> None:
    bench = Bench(leaders=(1, 1, 1, 1))
    bench.submit([message("a", key=b"abc"), message("b", key=b"21")])
    [seen] = bench.sent
    assert {one.values: one.partition for one in seen} == {
        "a": VECTORS[b"abc"] % 4,
        "b": (VECTORS[b"21"] & 0x7FFFFFFF) % 4,
    }


def test_an_empty_key_is_a_key() -> None:
    bench = Bench(leaders=(1, 1, 1, 1, 1, 1, 1))
    bench.submit([message("a", key=b"")])
    assert bench.only().partition == hash_key(b"") % 7


def test_no_partitioner_stays_none() -> None:
    assert adapt(None) is None


def test_a_function_gets_key_all_and_available_partitions() -> None:
    asked: list[Any] = []

    def choose(key: bytes | None, everything: Sequence[int], available: Sequence[int]) -> int:
        asked.append((key, everything, available))
        return 1

    bench = Bench(leaders=(-1, 1, 1), partitioner=adapt(choose))
    bench.submit([message("a", key=b"k"), message("b")])
    assert asked == [(b"k", [0, 1, 2], [1, 2]), (None, [0, 1, 2], [1, 2])]
    assert bench.only().values == "ab"


def test_an_explicit_partition_is_not_asked_about() -> None:
    bench = Bench(partitioner=adapt(lambda *_: 1 / 0))
    bench.submit("a", partition=0)
    assert bench.only().values == "a"


def test_a_kafka_python_partitioner_is_asked_with_bytes_and_a_cluster() -> None:
    class Last:
        def partition(self, topic: str, *args: Any) -> int:
            cluster = args[-1]
            assert args[:-1] == (b"k", b"k", b"v", b"v")
            assert cluster.topics() == {topic}
            assert cluster.partitions_for_topic("other") is None
            assert cluster.available_partitions_for_topic(topic) == {0, 1}
            last: int = max(cluster.partitions_for_topic(topic))
            return last

    bench = Bench(leaders=(1, 1, -1), partitioner=adapt(Last()))
    bench.submit([message(key=b"k")])
    assert bench.core._topics["topic"].partitions[2].queue


@pytest.mark.parametrize("nonsense", [-1, 3, 1.0, "0", None])
def test_an_answer_that_is_no_partition_fails_its_message_only(nonsense: object) -> None:
    answers = iter([0, nonsense, 0])
    bench = Bench(leaders=(1, 1, 1), partitioner=adapt(lambda *_: next(answers)))
    bench.submit([message(value, key=b"k") for value in "abc"])
    assert [(one.values, one.error) for one in bench.outcomes()] == [("b", "PartitioningFailed")]
    assert bench.only().values == "ac"


def test_a_partitioner_that_raises_fails_its_message_only() -> None:
    def choose(key: bytes, *_: object) -> int:
        return {b"k": 0}[key]

    bench = Bench(partitioner=adapt(choose))
    bench.submit([message("a", key=b"k"), message("b", key=b"?"), message("c", key=b"k")])
    assert str(bench.settled[0].error) == "the partitioner raised KeyError(b'?')"
    assert [one.values for one in bench.outcomes()] == ["b"]
    assert bench.only().values == "ac"
