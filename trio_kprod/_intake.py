"""From the arguments of a send to an `Entry`. Every check is made here, before anything is queued.

This runs for each message, so it is written for speed: a topic's name is checked once and remembered with
its `TopicAccount`, one comparison recognises the right type, and only an argument that looks wrong pays
for finding out what exactly is wrong with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from math import inf
from time import time_ns
from typing import TYPE_CHECKING, Any

from ._counters import IntakeCounters
from ._errors import MessageTooLarge
from ._messages import BATCH_OVERHEAD, HEADER_OVERHEAD, RECORD_OVERHEAD, one_batch_overhead
from ._room import TopicAccount
from ._settings import integer, shown, wrong_type, wrong_value

if TYPE_CHECKING:
    from ._instruments import Instruments
    from ._ledger import Ledger
    from ._messages import Entry, Headers
    from ._settings import Settings

#: Topics without unsettled messages are forgotten when there are this many, so that a program which makes up
#: topic names does not use more and more memory.
MAX_IDLE_TOPICS = 10_000

_LEGAL_TOPIC = re.compile(r"[a-zA-Z0-9._-]{1,249}")

_check_partition = integer(0, 2**31 - 1)
_check_timestamp = integer(0, 2**63 - 1)


class TopicAccounts(dict[str, TopicAccount]):
    """Every topic that was sent to, by its name; asking for a new name checks it.

    Attributes:
        pins (int): how many sends have looked up their topic and now run the user's code, which may send to
            other topics. Until they are done no account is forgotten: it might be one of theirs.
    """

    pins = 0
    _limit = MAX_IDLE_TOPICS

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        self._max_request_size = settings.max_request_size
        self._client_id = settings.client_id

    def __missing__(self, name: str) -> TopicAccount:
        check_topic(name)
        if len(self) >= self._limit and not self.pins:
            self._forget_idle()
        # `str` of a subclass could be anything (an enum's is not its value), this is its characters.
        name = "".join(name)
        overhead = one_batch_overhead(self._client_id, name) + BATCH_OVERHEAD
        self[name] = topic = TopicAccount(name, self._max_request_size - overhead)
        return topic

    def _forget_idle(self) -> None:
        for name in [topic.name for topic in self.values() if topic.is_idle]:
            del self[name]
        self._limit = MAX_IDLE_TOPICS + 2 * len(self)  # so that this is rare, however many are in use


class Intake(IntakeCounters):
    """Makes entries of what the user gives. Reads clocks, changes nothing."""

    def __init__(
        self, settings: Settings, clock: Callable[[], float], ledger: Ledger, topics: TopicAccounts
    ) -> None:
        self.topics: TopicAccounts = topics
        self.tickets: Iterator[int] = ledger.tickets
        self.ledger: Ledger = ledger
        self.clock: Callable[[], float] = clock
        self.millisecond: int = 0
        self.millisecond_ends: float = -inf
        self._key_serializer = settings.key_serializer
        self._value_serializer = settings.value_serializer
        self._max_request_size = settings.max_request_size

    @property
    def is_plain(self) -> bool:
        """Whether bytes become an entry without any code of the user's."""
        return self._key_serializer is None and self._value_serializer is None

    def topic(self, name: str) -> TopicAccount:
        try:
            return self.topics[name]
        except TypeError:
            check_topic(name)  # says it better if the name cannot be looked up, as a list cannot
            raise

    def message(
        self,
        topic: TopicAccount,
        value: Any,
        key: Any,
        headers: Headers | None,
        partition: int | None,
        timestamp_ms: int | None,
        ticket: int | None = None,
    ) -> Entry:
        size = RECORD_OVERHEAD
        if value is not None:
            if self._value_serializer is not None:
                value = self._serialize("value_serializer", self._value_serializer, topic.name, value)
            elif type(value) is not bytes:
                value = _checked_bytes("value", value)
            if value is not None:
                size += len(value)
        if key is not None:
            if self._key_serializer is not None:
                key = self._serialize("key_serializer", self._key_serializer, topic.name, key)
            elif type(key) is not bytes:
                key = _checked_bytes("key", key)
            if key is not None:
                size += len(key)
        if key is None and value is None:
            raise ValueError("key and value must not both be None: a tombstone needs a key to delete")
        pairs: Headers = ()
        if headers is not None:
            pairs, headers_size = _plain_headers(headers) or self._unusual_headers(headers)
            size += headers_size
        if partition is not None:
            partition = _check_partition("partition", partition)
        now = self.clock()
        if timestamp_ms is not None:
            timestamp_ms = _check_timestamp("timestamp_ms", timestamp_ms)
        elif now < self.millisecond_ends:
            timestamp_ms = self.millisecond
        else:
            timestamp_ms = self.read_wall_clock(now)
        if size > topic.max_message_size:
            raise self._too_large(topic, size)
        return topic.name, value, key, pairs, partition, timestamp_ms, size, now, ticket, self.ledger.run

    def _unusual_headers(self, headers: Headers) -> tuple[Headers, int]:
        self.topics.pins += 1
        try:
            return _checked_headers(headers)
        finally:
            self.topics.pins -= 1

    def _too_large(self, topic: TopicAccount, size: int) -> MessageTooLarge:
        size += self._max_request_size - topic.max_message_size
        return MessageTooLarge(
            f"the message to {topic.name!r} takes {size} bytes with the overhead of its request, "
            f"max_request_size allows {self._max_request_size}"
        )

    def _serialize(
        self, name: str, serializer: Callable[[str, Any], Any], topic: str, given: Any
    ) -> bytes | None:
        self.topics.pins += 1
        try:
            data = serializer(topic, given)
        except Exception as error:
            kind = TypeError if isinstance(error, TypeError) else ValueError
            raise kind(f"{name} failed for {shown(given)}: {type(error).__name__}: {error}") from error
        finally:
            self.topics.pins -= 1
        if data is None or type(data) is bytes:
            return data
        if isinstance(data, (bytes, bytearray, memoryview)):
            return bytes(data)
        raise TypeError(f"{name} must return bytes or None, but for {shown(given)} it returned {shown(data)}")

    def read_wall_clock(self, now: float) -> int:
        """Called once a millisecond: messages in between get the same time stamp, and are encoded faster."""
        self.millisecond_ends = now + 0.001
        self.millisecond = time_ns() // 1_000_000
        return self.millisecond


class FollowedIntake(Intake):
    """For instruments that follow single messages: tells them of each before it is made."""

    def __init__(
        self,
        settings: Settings,
        clock: Callable[[], float],
        ledger: Ledger,
        topics: TopicAccounts,
        instruments: Instruments,
    ) -> None:
        super().__init__(settings, clock, ledger, topics)
        self._instruments = instruments

    @property
    def is_plain(self) -> bool:
        return False

    def message(
        self,
        topic: TopicAccount,
        value: Any,
        key: Any,
        headers: Headers | None,
        partition: int | None,
        timestamp_ms: int | None,
        ticket: int | None = None,
    ) -> Entry:
        number = next(self.tickets) if ticket is None else ticket
        self.topics.pins += 1
        try:
            added = self._instruments.ask(
                "sending",
                _added_headers,
                number=number,
                topic=topic.name,
                value=value,
                key=key,
                headers=headers,
                partition=partition,
                timestamp_ms=timestamp_ms,
            )
            if any(added):
                given, _ = _checked_headers(headers or ())
                headers = [*given, *chain.from_iterable(added)]
            return super().message(topic, value, key, headers, partition, timestamp_ms, number)
        except BaseException as error:
            self._instruments.tell("rejected", number=number, error=error)
            raise
        finally:
            self.topics.pins -= 1


def make_intakes(
    settings: Settings, clock: Callable[[], float], ledger: Ledger, instruments: Instruments
) -> tuple[Intake, Intake]:
    """One with the serializers, and one for keys and values that are bytes already."""
    topics = TopicAccounts(settings)

    def make(settings: Settings) -> Intake:
        if instruments.follow_messages:
            return FollowedIntake(settings, clock, ledger, topics, instruments)
        return Intake(settings, clock, ledger, topics)

    return make(settings), make(replace(settings, key_serializer=None, value_serializer=None))


def _added_headers(answer: Headers | None) -> Headers:
    return () if answer is None else _checked_headers(answer)[0]


def check_topic(name: object) -> None:
    if not isinstance(name, str):
        raise wrong_type("topic", name, "a string")
    if not _LEGAL_TOPIC.fullmatch(name) or name in (".", ".."):
        raise wrong_value(
            "topic", name, "1 to 249 of the characters a-z, A-Z, 0-9, '.', '_' and '-', but not '.' or '..'"
        )


def _checked_bytes(name: str, given: object) -> bytes:
    if isinstance(given, bytes):
        return bytes(given)
    if isinstance(given, (bytearray, memoryview)):
        raise wrong_type(name, given, f"bytes (or None), not something that can change: give bytes({name})")
    raise wrong_type(name, given, f"bytes or None, unless {name}_serializer is set")


def _plain_headers(headers: Headers) -> tuple[Headers, int] | None:
    """Like `_checked_headers`, but in one loop, without code of the user's. None if anything is unusual."""
    if type(headers) is not list and type(headers) is not tuple:
        return None
    size = HEADER_OVERHEAD * len(headers)
    for pair in headers:
        if type(pair) is not tuple or len(pair) != 2:
            return None
        name, value = pair
        if type(name) is not str or not name.isascii():
            return None
        size += len(name)
        if type(value) is bytes:
            size += len(value)
        elif value is not None:
            return None
    return tuple(headers), size


def _checked_headers(headers: Headers) -> tuple[Headers, int]:
    """The headers as a tuple of pairs, and the most that they take."""
    if isinstance(headers, dict):
        raise wrong_type("headers", headers, "(str, bytes or None) pairs, for a dict: list(headers.items())")
    if isinstance(headers, (str, bytes)) or not hasattr(headers, "__iter__"):
        raise wrong_type("headers", headers, "a sequence of (str, bytes or None) pairs")
    pairs = tuple([_checked_header(position, pair) for position, pair in enumerate(headers)])
    size = sum(len(name.encode()) + len(value or b"") for name, value in pairs)
    return pairs, size + HEADER_OVERHEAD * len(pairs)


def _checked_header(position: int, pair: Any) -> tuple[str, bytes | None]:
    what = f"headers[{position}]"
    if not isinstance(pair, (tuple, list)) or len(pair) != 2:
        raise wrong_type(what, pair, "a pair of a str and bytes (or None)")
    name, value = pair
    if not isinstance(name, str):
        raise wrong_type(f"{what}[0]", name, "a str")
    if value is not None and not isinstance(value, bytes):
        raise wrong_type(f"{what}[1]", value, "bytes or None")
    try:
        name.encode()
    except UnicodeEncodeError:
        raise wrong_value(f"{what}[0]", name, "a str that UTF-8 can encode (no lone surrogates)") from None
    # Their exact types, as the client's thread must not run the code of a subclass.
    return str.__str__(name), None if value is None else bytes(value)
