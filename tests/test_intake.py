"""What bad input gets: an error at the call that names the argument, what was given and what is allowed."""

from __future__ import annotations

import enum
import gc
import time
import uuid
from typing import Any, NamedTuple
from unittest.mock import Mock

import pytest

from trio_kprod._client._produce_codec import HIGHEST_VERSION, LOWEST_VERSION, ProduceExchange
from trio_kprod._errors import MessageTooLarge
from trio_kprod._intake import MAX_IDLE_TOPICS, Intake, TopicAccounts
from trio_kprod._ledger import Ledger
from trio_kprod._messages import (
    ACCEPTED_AT,
    BATCH_OVERHEAD,
    HEADER_OVERHEAD,
    RECORD_OVERHEAD,
    RUN,
    Entry,
    Message,
    one_batch_overhead,
)
from trio_kprod._settings._config import make_settings


def intake(**settings: Any) -> Intake:
    made = make_settings(**settings)
    return Intake(made, lambda: 5.0, Ledger(), TopicAccounts(made))


SMALL = {"client_config": {"max_request_size": 1000}}


def make_entry(
    value: Any = b"v",
    *,
    topic: Any = "topic",
    key: Any = None,
    headers: Any = None,
    partition: Any = None,
    timestamp_ms: Any = None,
    **settings: Any,
) -> Entry:
    into = intake(**settings)
    return into.message(into.topic(topic), value, key, headers, partition, timestamp_ms)


def make(value: Any = b"v", **how: Any) -> Message:
    return Message.of(make_entry(value, **how))


BAD = [
    ({"topic": None}, TypeError, "topic must be a string, got None"),
    ({"topic": b"topic"}, TypeError, "topic must be a string, got b'topic'"),
    ({"topic": ["topic"]}, TypeError, r"topic must be a string, got \['topic'\]"),
    ({"topic": ""}, ValueError, "topic must be 1 to 249 of the characters"),
    ({"topic": "a b"}, ValueError, "topic must be .* got 'a b'"),
    ({"topic": "a\n"}, ValueError, "topic must be"),
    ({"topic": "\udc80"}, ValueError, "topic must be"),
    ({"topic": "ä"}, ValueError, "topic must be"),
    ({"topic": "."}, ValueError, "not '.' or '..'"),
    ({"topic": ".."}, ValueError, "not '.' or '..'"),
    ({"topic": "x" * 250}, ValueError, "topic must be 1 to 249"),
    ({"value": "text"}, TypeError, "value must be bytes or None, unless value_serializer is set, got 'text'"),
    ({"value": 5}, TypeError, "value must be bytes or None"),
    ({"value": bytearray(b"x")}, TypeError, r"give bytes\(value\)"),
    ({"value": memoryview(b"x")}, TypeError, r"give bytes\(value\)"),
    ({"key": "text"}, TypeError, "key must be bytes or None, unless key_serializer is set, got 'text'"),
    ({"value": None}, ValueError, "key and value must not both be None"),
    ({"headers": {"a": b"1"}}, TypeError, r"headers must be .*list\(headers.items\(\)\)"),
    ({"headers": 5}, TypeError, "headers must be a sequence of"),
    ({"headers": "ab"}, TypeError, "headers must be a sequence of"),
    ({"headers": ["ab"]}, TypeError, r"headers\[0\] must be a pair"),
    ({"headers": [("a", b"1"), ("a",)]}, TypeError, r"headers\[1\] must be a pair"),
    ({"headers": [(b"a", b"1")]}, TypeError, r"headers\[0\]\[0\] must be a str, got b'a'"),
    ({"headers": [("a", "1")]}, TypeError, r"headers\[0\]\[1\] must be bytes or None, got '1'"),
    ({"headers": [("\udc80", b"1")]}, ValueError, r"headers\[0\]\[0\] must be a str that UTF-8 can encode"),
    ({"partition": -1}, ValueError, "partition must be .* got -1"),
    ({"partition": 1.0}, TypeError, "partition must be .* got 1.0"),
    ({"partition": "0"}, TypeError, "partition must be .* got '0'"),
    ({"partition": True}, TypeError, "partition must be .* got True"),
    ({"partition": 2**31}, ValueError, "partition must be"),
    ({"timestamp_ms": -1}, ValueError, "timestamp_ms must be .* got -1"),
    ({"timestamp_ms": 2**63}, ValueError, "timestamp_ms must be"),
    ({"timestamp_ms": 1.5}, TypeError, "timestamp_ms must be .* got 1.5"),
    ({"timestamp_ms": True}, TypeError, "timestamp_ms must be .* got True"),
    ({"timestamp_ms": "x"}, TypeError, "timestamp_ms must be .* got 'x'"),
]


@pytest.mark.parametrize(("arguments", "kind", "text"), BAD)
def test_bad_input(arguments: dict[str, Any], kind: type[Exception], text: str) -> None:
    with pytest.raises(kind, match=text) as caught:
        make(**arguments)
    assert type(caught.value) is kind


def test_what_is_allowed() -> None:
    assert make(b"").value == b""
    assert make(None, key=b"k").value is None
    assert make(None, key=b"").key == b""
    assert make(headers=[("a", None), ["b", b""]]).headers == (("a", None), ("b", b""))
    assert make(headers=()).headers == ()
    assert make(partition=0).partition == 0
    assert make(timestamp_ms=0).timestamp_ms == 0
    assert make(timestamp_ms=2**63 - 1).timestamp_ms == 2**63 - 1
    assert make(topic="x" * 249).topic == "x" * 249
    assert make(topic="...").topic == "..."


def test_an_entry_knows_when_and_in_which_run_it_came_in() -> None:
    assert make_entry()[ACCEPTED_AT] == 5.0
    assert make_entry()[RUN] == 0


@pytest.mark.parametrize("how", [{}, {"key": b"k", "partition": 1}, {"headers": ()}])
def test_the_garbage_collector_lets_go_of_an_entry(how: dict[str, Any]) -> None:
    """So a backlog does not make it look through the whole heap."""
    entry = make_entry(bytes(100), **how)
    gc.collect(0)
    assert not gc.is_tracked(entry)


def test_the_time_of_the_call_is_the_default() -> None:
    before = time.time_ns() // 1_000_000
    assert before <= make().timestamp_ms <= time.time_ns() // 1_000_000


def test_subclasses_arrive_as_what_they_are() -> None:
    class Name(str, enum.Enum):
        TOPIC = "topic"

    class Data(bytes):
        pass

    message = make(Data(b"x"), topic=Name.TOPIC)
    assert type(message.topic) is str
    assert message.topic == "topic"
    assert type(message.value) is bytes


def test_subclasses_in_headers_arrive_as_what_they_are() -> None:
    """Nothing of their classes goes on to the client's thread."""

    class Name(str, enum.Enum):
        TRACE = "trace-id"

    class Data(bytes):
        def __len__(self) -> int:
            return 10**9

    message = make(headers=[(Name.TRACE, Data(b"x")), (Name.TRACE, None)])
    assert message.headers == (("trace-id", b"x"), ("trace-id", None))
    assert [type(one) for one in message.headers[0]] == [str, bytes]
    assert message.size == make(headers=[("trace-id", b"x"), ("trace-id", None)]).size


class _Pairs(list[Any]):
    def __iter__(self) -> Any:
        return iter([("a", b"1"), ("b", None)])


class _Pair(NamedTuple):
    name: str
    value: bytes | None


HEADERS = (("a", b"1"), ("b", None))


@pytest.mark.parametrize(
    "given",
    [
        HEADERS,
        list(HEADERS),
        [list(pair) for pair in HEADERS],
        [_Pair(*pair) for pair in HEADERS],
        iter(HEADERS),
        dict(HEADERS).items(),
        _Pairs(),
    ],
    ids=["tuple", "list", "lists", "named tuples", "iterator", "items of a dict", "subclass"],
)
def test_headers_in_every_shape(given: Any) -> None:
    """Plain ones take another way than unusual ones, to the same end."""
    message = make(headers=given)
    assert message.headers == HEADERS
    assert {type(pair) for pair in message.headers} == {tuple}
    assert message.size == RECORD_OVERHEAD + 1 + 2 * HEADER_OVERHEAD + 3


def test_one_wrong_header_among_many() -> None:
    """The error names its place."""
    for wrong, text in (
        (5, r"headers\[99\] must be a pair"),
        (("x", 5), r"headers\[99\]\[1\] must be bytes"),
    ):
        with pytest.raises(TypeError, match=text):
            make(headers=[("a", b"1")] * 99 + [wrong])


def test_headers_are_copied() -> None:
    headers = [("a", b"1")]
    message = make(headers=headers)
    headers.clear()
    assert message.headers == (("a", b"1"),)


def test_sizes_are_upper_bounds() -> None:
    message = make(b"value", key=b"key", headers=[("ä", b"12"), ("b", None)])
    assert message.size == RECORD_OVERHEAD + 5 + 3 + 2 * HEADER_OVERHEAD + len("ä".encode()) + 2 + 1


def test_a_message_larger_than_a_request() -> None:
    fits = 1000 - one_batch_overhead("trio-kprod", "topic") - BATCH_OVERHEAD - RECORD_OVERHEAD
    make(bytes(fits), **SMALL)
    with pytest.raises(
        MessageTooLarge,
        match="takes 1001 bytes with the overhead of its request, max_request_size allows 1000",
    ):
        make(bytes(fits + 1), **SMALL)


def test_the_name_of_the_topic_is_part_of_the_request() -> None:
    fits = 1000 - one_batch_overhead("trio-kprod", "x" * 249) - BATCH_OVERHEAD - RECORD_OVERHEAD
    make(bytes(fits), topic="x" * 249, **SMALL)
    with pytest.raises(MessageTooLarge):
        make(bytes(fits + 1), topic="x" * 249, **SMALL)


@pytest.mark.parametrize("version", range(LOWEST_VERSION, HIGHEST_VERSION + 1))
@pytest.mark.parametrize("name", ["t", "x" * 249])
def test_no_request_with_one_batch_is_larger_than_its_overhead_says(name: str, version: int) -> None:
    """In each version; the largest message therefore fits in with all that belongs to its request."""
    for size in (0, 127, 128, 2**14, 2**21, 2**21 + 1):
        topic, batch, request = Mock(id=uuid.uuid4()), Mock(data=bytes(size), entries=()), Mock()
        topic.name = name
        batch.partition = Mock(topic=topic, index=0)
        request.batches = [batch]
        frame = ProduceExchange(request, version, -1, 30, Mock()).encode("client")
        assert len(frame) <= one_batch_overhead("client", name) + size


def test_serializers() -> None:
    message = make(
        {"a": 1}, key=5, value_serializer=lambda value: repr(value).encode(), key_serializer=lambda _: b"k"
    )
    assert (message.value, message.key) == (b"{'a': 1}", b"k")
    assert make(5, value_serializer=lambda _: bytearray(b"x")).value == b"x"
    assert make(5, key=b"k", value_serializer=lambda _: None).value is None


def test_none_is_not_given_to_serializers() -> None:
    message = make(None, key=b"k", value_serializer=lambda value: value.encode())
    assert message.value is None


def test_a_serializer_that_returns_something_else() -> None:
    with pytest.raises(
        TypeError, match="value_serializer must return bytes or None, but for 5 it returned '5'"
    ):
        make(5, value_serializer=str)


@pytest.mark.parametrize(
    ("raised", "kind"), [(KeyError, ValueError), (TypeError, TypeError), (UnicodeError, ValueError)]
)
def test_a_serializer_that_raises(raised: type[Exception], kind: type[Exception]) -> None:
    def serializer(_: object) -> bytes:
        raise raised("mine")

    with pytest.raises(kind, match=r"key_serializer failed for 5: .*mine") as caught:
        make(key=5, key_serializer=serializer)
    assert isinstance(caught.value.__cause__, raised)


def test_topics_nobody_uses_are_forgotten() -> None:
    into = intake()
    busy = into.topic("busy")
    busy.unsettled = 1
    for number in range(MAX_IDLE_TOPICS + 5):
        into.topic(f"made-up-{number}")
    assert len(into.topics) <= MAX_IDLE_TOPICS
    assert into.topic("busy") is busy
