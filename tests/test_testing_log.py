"""The embedded broker's log: what a broker checks, in which order, and what it remembers of producers."""

from __future__ import annotations

import struct
from dataclasses import replace
from typing import NamedTuple

import pytest
from kafka.record.util import calc_crc32c

from tests._testing_peer import batch
from trio_kprod.testing import Code
from trio_kprod.testing._cluster import Address, Cluster, Options, Topic, TopicSettings
from trio_kprod.testing._produce import Outcome, append_batch

LAST_SEQUENCE = 2**31 - 1


class Partition(NamedTuple):
    """One partition to append to."""

    cluster: Cluster
    topic: Topic

    def append(self, data: bytes | None) -> Outcome:
        return append_batch(self.cluster, self.topic, self.topic.partitions[0], data)

    def write(
        self, sequence: int, count: int = 1, *, epoch: int = 0, producer_id: int = 7
    ) -> tuple[int, int]:
        """Append an idempotent batch; gives code and base offset."""
        data = batch([b"v"] * count, producer_id=producer_id, epoch=epoch, sequence=sequence)
        return self.append(data)[:2]

    def values(self) -> list[bytes | None]:
        return [record.value for record in self.cluster.records("t")]


@pytest.fixture
def partition() -> Partition:
    cluster = Cluster(Options(now_ms=lambda: 1_800_000_000_000), Address("memory", 9092))
    return Partition(cluster, cluster.create_topic("t", 1))


OUT_OF_ORDER = (Code.OUT_OF_ORDER_SEQUENCE_NUMBER, -1)
FENCED = (Code.INVALID_PRODUCER_EPOCH, -1)


def test_batches_in_sequence_are_appended(partition: Partition) -> None:
    assert [partition.write(0, 2), partition.write(2, 3), partition.write(5)] == [(0, 0), (0, 2), (0, 5)]


def test_any_of_the_last_five_batches_is_a_duplicate(partition: Partition) -> None:
    offsets = [partition.write(sequence) for sequence in range(6)]
    assert [partition.write(sequence) for sequence in range(1, 6)] == offsets[1:]
    assert len(partition.values()) == 6


def test_an_older_duplicate_is_out_of_order(partition: Partition) -> None:
    for sequence in range(6):
        partition.write(sequence)
    assert partition.write(0) == OUT_OF_ORDER


def test_a_duplicate_is_told_by_its_range_alone(partition: Partition) -> None:
    partition.append(batch([b"first"], producer_id=7, epoch=0, sequence=0))
    again = partition.append(batch([b"other"], producer_id=7, epoch=0, sequence=0))
    assert (again.code, again.base_offset) == (0, 0)
    assert partition.values() == [b"first"]


def test_another_range_from_the_same_start_is_out_of_order(partition: Partition) -> None:
    partition.write(0, 2)
    assert partition.write(0, 3) == OUT_OF_ORDER
    assert partition.write(1, 1) == OUT_OF_ORDER


def test_a_gap_is_out_of_order_and_changes_nothing(partition: Partition) -> None:
    partition.write(0)
    assert partition.write(2) == OUT_OF_ORDER
    assert partition.write(1) == (0, 1)


def test_without_state_any_first_sequence_is_taken(partition: Partition) -> None:
    assert partition.write(6) == (0, 0)
    assert partition.write(0) == OUT_OF_ORDER
    assert partition.write(7) == (0, 1)


def test_without_state_any_epoch_is_taken(partition: Partition) -> None:
    assert partition.write(3, epoch=9) == (0, 0)


def test_a_lower_epoch_is_fenced_also_for_a_duplicate(partition: Partition) -> None:
    partition.write(0)
    partition.write(0, epoch=1)
    assert partition.write(0) == FENCED
    assert partition.write(1) == FENCED


def test_a_higher_epoch_starts_at_zero(partition: Partition) -> None:
    partition.write(0)
    assert partition.write(1, epoch=1) == OUT_OF_ORDER
    assert partition.write(1) == (0, 1)  # the refused attempt changed nothing
    assert partition.write(0, epoch=32767) == (0, 2)


def test_a_higher_epoch_forgets_the_ranges_of_the_lower(partition: Partition) -> None:
    partition.write(0)
    partition.write(1)
    partition.write(0, epoch=1)
    assert partition.write(1, epoch=1) == (0, 3)


def test_sequences_wrap_between_batches(partition: Partition) -> None:
    partition.write(LAST_SEQUENCE)
    assert partition.write(0) == (0, 1)


def test_sequences_wrap_inside_a_batch(partition: Partition) -> None:
    partition.write(LAST_SEQUENCE - 1, 4)
    assert partition.write(2) == (0, 4)
    assert partition.write(LAST_SEQUENCE - 1, 4) == (0, 0)


def test_producers_do_not_share_state(partition: Partition) -> None:
    partition.write(0)
    assert partition.write(5, producer_id=8) == (0, 1)


def test_partitions_do_not_share_state(partition: Partition) -> None:
    partition.write(0)
    other = Partition(partition.cluster, partition.cluster.create_topic("u", 1))
    assert other.write(4, epoch=3) == (0, 0)


def test_a_producer_without_id_has_no_state(partition: Partition) -> None:
    assert [partition.append(batch())[:2] for _ in range(2)] == [(0, 0), (0, 1)]


# ---------------------------------------------------------------------------------------------------------
# Checks before the producer state


def test_a_wrong_checksum_is_corrupt(partition: Partition) -> None:
    data = bytearray(batch([b"value"]))
    data[-2] ^= 1
    assert partition.append(bytes(data))[:2] == (Code.CORRUPT_MESSAGE, -1)


def test_two_batches_in_one_entry_are_invalid(partition: Partition) -> None:
    assert partition.append(batch() + batch()).code == Code.INVALID_RECORD


@pytest.mark.parametrize("data", [None, b"", b"short", batch()[:-1], b"\0" * 80])
def test_what_is_no_batch_is_invalid(partition: Partition, data: bytes | None) -> None:
    outcome = partition.append(data)
    assert (outcome.code, outcome.base_offset, outcome.record_errors) == (Code.INVALID_RECORD, -1, ())


def test_an_old_format_is_invalid(partition: Partition) -> None:
    data = bytearray(batch())
    data[16] = 1
    assert partition.append(bytes(data)).code == Code.INVALID_RECORD


def test_a_base_offset_other_than_zero_is_invalid(partition: Partition) -> None:
    assert partition.append(b"\0\0\0\0\0\0\0\1" + batch()[8:]).code == Code.INVALID_RECORD


def with_valid_checksum(data: bytearray) -> bytes:
    """The batch after something in it was changed."""
    struct.pack_into(">I", data, 17, calc_crc32c(bytes(data[21:])))
    return bytes(data)


def test_a_count_that_does_not_fit_the_offsets_is_invalid(partition: Partition) -> None:
    data = bytearray(batch([b"1", b"2"]))
    struct.pack_into(">i", data, 23, 5)  # the last offset delta
    outcome = partition.append(with_valid_checksum(data))
    assert (outcome.code, outcome.message) == (
        Code.INVALID_RECORD,
        "The offsets of the batch do not match its records",
    )


def test_a_producer_id_needs_an_epoch_and_a_sequence(partition: Partition) -> None:
    outcome = partition.append(batch(producer_id=7))
    assert (outcome.code, outcome.message) == (
        Code.INVALID_RECORD,
        "An idempotent batch needs an epoch and a sequence number",
    )


def test_records_that_cannot_be_read_are_refused_where_their_keys_matter(partition: Partition) -> None:
    data = bytearray(batch([b"1"], key=b"k"))
    data[61] = 126  # the length of the record
    partition.topic.settings = TopicSettings(compacted=True)
    assert partition.append(with_valid_checksum(data)).code == Code.INVALID_RECORD
    assert partition.topic.partitions[0].end_offset == 0


def test_the_checksum_is_checked_before_the_size(partition: Partition) -> None:
    partition.topic.settings = TopicSettings(max_message_bytes=10)
    assert partition.append(batch()).code == Code.MESSAGE_TOO_LARGE
    data = bytearray(batch())
    data[-2] ^= 1
    assert partition.append(bytes(data)).code == Code.CORRUPT_MESSAGE


def test_a_batch_that_is_there_already_can_be_refused_when_it_comes_again(partition: Partition) -> None:
    partition.write(0)
    partition.cluster.alter_topic("t", max_message_bytes=10)
    assert partition.write(0) == (Code.MESSAGE_TOO_LARGE, -1)


def test_a_refused_batch_leaves_no_state(partition: Partition) -> None:
    partition.cluster.alter_topic("t", max_message_bytes=10)
    partition.write(0)
    partition.cluster.alter_topic("t", max_message_bytes=None)
    assert partition.write(5) == (0, 0)


def test_the_broker_has_a_size_limit_too() -> None:
    cluster = Cluster(Options(max_message_bytes=100), Address("memory", 9092))
    partition = Partition(cluster, cluster.create_topic("t", 1))
    assert partition.append(batch([b"x" * 100])).code == Code.MESSAGE_TOO_LARGE
    assert partition.append(batch()).code == 0


def test_a_compacted_topic_lists_every_record_without_key(partition: Partition) -> None:
    partition.topic.settings = TopicSettings(compacted=True)
    outcome = partition.append(batch([b"1", b"2"]))
    assert outcome.code == Code.INVALID_RECORD
    assert [index for index, _ in outcome.record_errors] == [0, 1]
    assert partition.append(batch([b"1", b"2"], key=b"k")).code == 0


# ---------------------------------------------------------------------------------------------------------
# What is kept


def test_records_are_kept_as_they_came(partition: Partition) -> None:
    partition.append(batch([b"1", None], key=b"k", timestamp_ms=123))
    first, second = partition.cluster.records("t")
    assert (first.topic, first.partition, first.offset, first.key, first.value) == ("t", 0, 0, b"k", b"1")
    assert (first.timestamp_ms, first.headers) == (123, ())
    assert second == replace(first, offset=1, value=None)


def test_log_append_time_is_written_and_told(partition: Partition) -> None:
    partition.topic.settings = TopicSettings(log_append_time=True)
    outcome = partition.append(batch([b"1", b"2"]))
    assert outcome.append_time_ms == 1_800_000_000_000
    assert [record.timestamp_ms for record in partition.cluster.records("t")] == [1_800_000_000_000] * 2
    (header,) = partition.topic.partitions[0].headers()
    assert header.validate_crc()


def test_create_time_is_not_told(partition: Partition) -> None:
    assert partition.append(batch()).append_time_ms == -1


def test_gzip_is_unpacked_for_reading(partition: Partition) -> None:
    values = [b"value " * 20] * 10
    partition.append(batch(values, compression=1))
    assert partition.values() == values
    (stored,) = partition.cluster.batches("t")
    assert (stored.compression, stored.count) == (1, 10)


def test_reading_begins_with_the_batch_that_holds_the_offset(partition: Partition) -> None:
    for _ in range(3):
        partition.append(batch([b"1", b"2"]))
    log = partition.topic.partitions[0]
    size = len(log.batches[0].data)
    assert log.read(3, 1 << 20) == log.batches[1].data + log.batches[2].data
    assert log.read(0, size * 2) == log.batches[0].data + log.batches[1].data
    assert log.read(0, 1) == log.batches[0].data
    assert log.read(6, 1 << 20) == b""


def test_the_first_record_since_a_time(partition: Partition) -> None:
    for time_ms in (100, 200):
        partition.append(batch(timestamp_ms=time_ms))
    log = partition.topic.partitions[0]
    assert [log.first_since(time_ms) for time_ms in (50, 101, 201)] == [(0, 100), (1, 200), None]


def test_a_topic_there_is_not_holds_nothing(partition: Partition) -> None:
    assert partition.cluster.records("u") == []
    assert partition.cluster.batches("u") == []
