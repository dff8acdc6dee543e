"""What travels: messages on their way in, and the values a user gets back."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Generic, NamedTuple

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # Where no key or value is given, the item says nothing of its type.
    K_co = TypeVar("K_co", covariant=True, default=Any)
    V_co = TypeVar("V_co", covariant=True, default=Any)
else:
    from typing import TypeVar

    K_co, V_co = map(TypeVar, ("K_co", "V_co"))

Headers = Sequence[tuple[str, "bytes | None"]]

#: The most a record takes besides key, value and headers: length (5 bytes), attributes (1), timestamp
#: delta (10), offset delta (5), and the lengths of key (5), value (5) and the header array (5).
RECORD_OVERHEAD = 36

#: The most a header takes besides its own bytes: two lengths.
HEADER_OVERHEAD = 10

#: What a record batch of format v2 takes before its first record.
BATCH_OVERHEAD = 61

#: The most a produce request takes besides client id, topics and batches: its length (4 bytes), API key and
#: version (4), correlation id (4), length of the client id (2), no transactional id (2), acks and timeout
#: (6), number of topics (5), tags (2).
_REQUEST_OVERHEAD = 29

#: The most a topic takes in it besides its name or id: lengths of name (2) and partitions (5), tags (1).
_TOPIC_OVERHEAD = 8
_TOPIC_ID = 16

#: What each partition takes besides its batch: its index (4), the batch's length (5), tags (1).
PARTITION_OVERHEAD = 10


def request_overhead(client_id: str) -> int:
    """What a produce request takes before its first topic, at the most."""
    return _REQUEST_OVERHEAD + len(client_id.encode())


def topic_overhead(name: str) -> int:
    """What a topic takes in a produce request besides its partitions, at the most."""
    return _TOPIC_OVERHEAD + max(len(name.encode()), _TOPIC_ID)


def one_batch_overhead(client_id: str, topic: str) -> int:
    """What a produce request takes besides its one batch, at the most."""
    return request_overhead(client_id) + topic_overhead(topic) + PARTITION_OVERHEAD


#: A message on its way, as the fields below: the one object there is for each, from the call to its outcome.
#:
#: A plain tuple and no class, for the sake of the garbage collector. It follows every instance of a class, so
#: that a backlog of thousands makes it look through the whole heap of the program again and again; a tuple of
#: nothing but text, bytes and numbers it lets go at first sight. (It also is the quickest to make.)
Entry = tuple[str, "bytes | None", "bytes | None", Headers, "int | None", int, int, float, "int | None", int]

TOPIC: Final = 0
VALUE: Final = 1  # serialized, as is the key
KEY: Final = 2
HEADERS: Final = 3
PARTITION: Final = 4  # the one asked for; None where the key or the producer chooses
TIMESTAMP_MS: Final = 5  # since 1970, stamped at the call unless given
SIZE: Final = 6  # the upper bound of the encoded, uncompressed size: what every bound counts
ACCEPTED_AT: Final = 7  # seconds on the client's clock, for `delivery_timeout` and the age of the oldest
TICKET: Final = 8  # of the `send_and_wait` that waits for it; used in the user's loop only
RUN: Final = 9  # the first position of its run, see `_ledger`; used in the user's loop only


def total_size(entries: Iterable[Entry]) -> int:
    return sum([entry[SIZE] for entry in entries])


class Message(NamedTuple):
    """One message, with key and value as the bytes that go to Kafka.

    Attributes:
        topic (str): the topic's name.
        value (bytes | None): the serialized value; None is a tombstone.
        key (bytes | None): the serialized key.
        headers: pairs of name and bytes (or None).
        partition (int | None): the partition asked for; None where the key or the producer chooses.
        timestamp_ms (int): milliseconds since 1970, stamped at the call unless given.
        size (int): the upper bound of its encoded, uncompressed size, in bytes.
    """

    topic: str
    value: bytes | None
    key: bytes | None
    headers: Headers
    partition: int | None
    timestamp_ms: int
    size: int

    @classmethod
    def of(cls, entry: Entry) -> Message:
        return cls(*entry[:7])

    def __repr__(self) -> str:
        parts = [repr(self.topic), _shorten(self.value)]
        if self.key is not None:
            parts.append(f"key={_shorten(self.key)}")
        if self.headers:
            parts.append(f"headers={list(self.headers)!r}")
        if self.partition is not None:
            parts.append(f"partition={self.partition}")
        return f"Message({', '.join(parts)}, timestamp_ms={self.timestamp_ms})"


def _shorten(data: bytes | None, limit: int = 40) -> str:
    if data is None or len(data) <= limit:
        return repr(data)
    return f"{data[:limit]!r}... ({len(data)} bytes)"


# Not frozen: that would cost more than all else about it, and with slots Item[str, bytes](...) would fail.
@dataclass(slots=True)
class Item(Generic[K_co, V_co]):
    """One message for `Producer.send_many`, with what a value or a pair ``(key, value)`` cannot say.

    Attributes:
        value: as `Producer.send` takes it; None is a tombstone.
        key: as `Producer.send` takes it.
        headers: pairs of str and bytes (or None).
        partition (int | None): where to send it; by default the key decides, or the producer.
        timestamp_ms (int | None): milliseconds since 1970, by default now.
    """

    value: V_co | None = None
    key: K_co | None = None
    headers: Headers | None = None
    partition: int | None = None
    timestamp_ms: int | None = None


class RecordMetadata(NamedTuple):
    """Where an acknowledged message is in Kafka's log.

    `offset` is -1 where no broker reported it: with ``acks=0``, and when a resent batch was recognised as
    already written. `timestamp_ms` is the broker's for a topic with log-append time, else the message's.
    """

    topic: str
    partition: int
    offset: int
    timestamp_ms: int


@dataclass(frozen=True, slots=True)
class Undelivered:
    """A message that was accepted, and that no broker has confirmed to be in the log.

    Attributes:
        message (Message): the message as it was accepted.
        maybe_written (bool): False is a promise: it is not in the log and never will be. True means
            that it may be in the log, or may still appear: sending it again may duplicate it.
        cause (BaseException): why it was given up.
    """

    message: Message
    maybe_written: bool
    cause: BaseException


@dataclass(frozen=True, slots=True)
class ProducerStatistics:
    """A snapshot; ``accepted == queued + waiting + in_flight + delivered + undelivered``.

    The ``*_bytes`` count messages as every bound does: encoded, uncompressed, with the record's overhead.
    `oldest_age` is in seconds, counted from the call that accepted the message; None if all are settled.
    `throttles` counts how often a broker made us pause because a quota was used up (KIP-219), and
    `throttled_time` sums up the pauses, in seconds.
    """

    accepted: int
    queued: int
    waiting: int
    in_flight: int
    delivered: int
    undelivered: int
    unsettled_bytes: int
    delivered_bytes: int
    undelivered_bytes: int
    tasks_waiting: int
    oldest_age: float | None
    throttles: int
    throttled_time: float
