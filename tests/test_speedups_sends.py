"""The usual send in C does what the Python does: the same entries, the same counts, the same errors.

Two producers are given the same, step by step: one as it is, with the compiled parts, and one without them.
"""

from __future__ import annotations

import contextlib
import gc
import inspect
import sys
from collections import deque
from collections.abc import Callable
from typing import Any
from unittest.mock import create_autospec

import pytest
import trio
import trio.testing
from hypothesis import given, settings, strategies as st

from tests._fake_client import FakeClient, check_sums, open_fake, settle_down
from trio_kprod import BufferOverflow, Instrument, Producer, ProducerClosed, _counters, _intake
from trio_kprod._messages import HEADERS, VALUE
from trio_kprod._room import TopicAccount
from trio_kprod._speedups import compiled

pytestmark = pytest.mark.skipif(
    compiled is None, reason="the compiled parts are not in use: pip install ./speedups"
)


@pytest.fixture(autouse=True)
def one_millisecond(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two producers stamp what they send at one time with one time."""
    monkeypatch.setattr(_intake, "time_ns", lambda: 1_700_000_000_123_456_789)


# -- whatever is given -------------------------------------------------------------------------------------


class Text(str):
    __slots__ = ()


class Data(bytes):
    __slots__ = ()


_texts: st.SearchStrategy[Any] = st.sampled_from(
    ["topic", "topic", "good", "new", "a b", "", Text("topic"), None, 5, b"topic", []]
)
_bytes: st.SearchStrategy[Any] = st.sampled_from(
    [b"v", b"v", b"", None, bytes(700), bytes(2000), Data(b"d"), bytearray(b"a"), memoryview(b"m"), "text", 7]
)
_numbers: st.SearchStrategy[Any] = st.sampled_from(
    [None, 0, 5, 2**31 - 1, 2**31, 2**63 - 1, 2**63, -1, 2**99, -(2**99), True, 1.0]
)
_good_pairs = [("h", b"v"), ("", b""), ("h", None), ("é€\U0001f600", b"v"), ("n" * 300, bytes(300))]
_odd_pairs = [(Text("h"), b"v"), ("h", Data(b"v")), ["h", b"v"]]
_bad_pairs = [("\ud800", b"v"), ("h", "v"), (b"h", b"v"), ("h",), ("h", b"", b""), None]
_pairs: st.SearchStrategy[Any] = st.lists(
    st.sampled_from([*_good_pairs, *_odd_pairs, *_bad_pairs]), max_size=3
)
_headers: st.SearchStrategy[Any] = st.one_of(
    st.none(),
    st.lists(st.sampled_from(_good_pairs)),
    _pairs,
    _pairs.map(tuple),
    _pairs.map(deque),
    st.sampled_from([{"h": b"v"}, "h", b"h", 5]),
)

_words = {
    "key": _bytes,
    "headers": _headers,
    "partition": _numbers,
    "timestamp_ms": _numbers,
    "value": _bytes,
    "topic": _texts,
    "nonsense": st.none(),
}
_arguments: st.SearchStrategy[Any] = st.one_of(
    st.tuples(_texts, _bytes), st.tuples(_texts), st.just(()), st.tuples(_texts, _bytes, _bytes)
)
_items: st.SearchStrategy[Any] = st.one_of(
    _bytes, st.tuples(_bytes, _bytes), st.tuples(_bytes), st.tuples(_bytes, _bytes, _bytes)
)
_sends: st.SearchStrategy[Any] = st.tuples(
    st.just("send_nowait"), _arguments, st.fixed_dictionaries({}, optional=_words)
)
_manys: st.SearchStrategy[Any] = st.tuples(
    st.just("_accept_item"), st.tuples(st.sampled_from(["topic", "good", "new"]), _items), st.just({})
)
_offers: st.SearchStrategy[Any] = st.tuples(
    st.just("_offer"), st.tuples(_texts, _bytes, _bytes, _headers, _numbers, _numbers), st.just({})
) | st.tuples(
    st.just("_offer"),
    st.tuples(_texts, _bytes, st.none(), st.none(), st.none(), st.none(), st.sampled_from([None, 7])),
    st.fixed_dictionaries({}, optional={"wake": st.booleans()}),
)
_plain_sends: st.SearchStrategy[Any] = st.tuples(
    st.just("send_nowait"), st.tuples(st.sampled_from(["topic", "new"]), st.just(b"v")), st.just({})
)
_acts: st.SearchStrategy[Any] = st.tuples(
    st.sampled_from(["turn", "time passes", "acknowledge", "cut", "stall", "recover"]),
    st.just(()),
    st.just({}),
)


class Pair:
    """Two producers, and what is done to both of them."""

    def __init__(self, producers: list[Producer[Any, Any]], clients: list[FakeClient]) -> None:
        self._producers = producers
        self._clients = clients

    async def do(self, name: str, args: tuple[Any, ...], keywords: dict[str, Any]) -> None:
        if name in ("send_nowait", "_offer", "_accept_item"):
            found, expected = (outcome(getattr(one, name), *args, **keywords) for one in self._producers)
            assert found == expected
        elif name == "turn":
            await settle_down()
        elif name == "time passes":
            await trio.sleep(0.0007)
        else:
            for producer, client in zip(self._producers, self._clients, strict=True):
                _ACTS[name](producer, client)

    def check(self) -> None:
        compiled, python = map(state, self._producers)
        assert compiled == python
        for producer in self._producers:
            check_sums(producer)


def outcome(call: Callable[..., Any], *args: Any, **keywords: Any) -> Any:
    try:
        returned = call(*args, **keywords)
    except Exception as error:
        return type(error), str(error)
    if returned is None:
        return None
    assert isinstance(returned[1], TopicAccount)
    return returned[0], returned[1].name, returned[2:]


def state(producer: Producer[Any, Any]) -> Any:
    room, topics = producer._room, producer._topics
    return (
        list(room.queue),
        [(type(field), field) for entry in room.queue for field in entry],
        [getattr(room, name) for name in _counters.IN_PYTHON[0].__slots__],
        (room._limited_count, room._limited_bytes),
        [[getattr(topic, name) for name in _counters.IN_PYTHON[1].__slots__] for topic in topics.values()],
        producer.statistics(),
    )


_ACTS: dict[str, Callable[[Any, FakeClient], object]] = {
    "acknowledge": lambda _, client: client.acknowledge(2),
    "cut": lambda producer, _: producer._intake.ledger.cut(producer._room.accepted),
    "stall": lambda producer, _: producer._room.stalled(producer._topics["topic"]),
    "recover": lambda producer, _: producer._room.recovered(producer._topics["topic"]),
}


@settings(max_examples=500, deadline=None, derandomize=True, database=None)
@given(
    steps=st.lists(st.one_of(_sends, _plain_sends, _offers, _manys, _acts), max_size=30),
    threshold=st.sampled_from([0, 1, 4]),
    interval=st.sampled_from([0, 1.0]),
    queue_size=st.sampled_from([3, 12]),
)
def test_both_do_the_same(steps: list[Any], threshold: int, interval: float, queue_size: int) -> None:
    """Whatever is sent and whatever happens in between, after each step."""
    options: dict[str, Any] = {
        "delivery_threshold": threshold,
        "delivery_interval": interval,
        "max_queue_size": queue_size,
        "max_buffer_size": 8,
        "max_buffer_bytes": 10_000,
        "max_request_size": 1_500,
        "batch_size": 1_000,
    }

    async def main() -> None:
        clients = [FakeClient(), FakeClient()]
        async with open_fake(clients[0], **options) as compiled, open_fake(clients[1], **options) as python:
            for name in ("send_nowait", "_offer", "_accept_item"):
                delattr(python, name)
            pair = Pair([compiled, python], clients)
            for name, args, keywords in steps:
                await pair.do(name, args, keywords)
                pair.check()
            for client in clients:
                client.automatic = True
                client.acknowledge()

    trio.run(main, clock=trio.testing.MockClock(autojump_threshold=0))


async def test_nobody_overtakes_a_task_that_waits() -> None:
    """A small message does not, although there would be room for it."""
    client = FakeClient()
    options: dict[str, Any] = {
        "max_buffer_bytes": 2_000,
        "max_request_size": 1_000,
        "delivery_threshold": 100,
    }
    async with open_fake(client, **options) as producer:
        for _ in range(2):
            producer.send_nowait("topic", bytes(700))
        async with trio.open_nursery() as nursery:
            nursery.start_soon(producer.send, "topic", bytes(700))
            await settle_down()
            assert producer.statistics().tasks_waiting == 1
            with pytest.raises(BufferOverflow, match="1 tasks wait for room"):
                producer.send_nowait("topic", b"small")
            client.automatic = True
            client.acknowledge()


def test_the_fields_are_the_same() -> None:
    """Each type of C has those of the class that it stands for."""
    for python in _counters.IN_PYTHON:
        found = getattr(compiled, python.__name__)
        assert found is getattr(_counters, python.__name__)
        assert sorted(name for name in vars(found) if not name.startswith("__")) == sorted(python.__slots__)


# -- who uses it, and what it looks like -------------------------------------------------------------------


async def opened(**options: Any) -> Producer[Any, Any]:
    async with open_fake(FakeClient(automatic=True), **options) as producer:
        return producer


class Counts(Instrument):
    def enqueue_message(self, **payload: Any) -> None: ...


class Follows(Instrument):
    def sending(self, **payload: Any) -> None: ...


class Watches(Instrument):
    def ack_messages(self, **payload: Any) -> None: ...


@pytest.mark.parametrize(
    ("options", "used"),
    [
        ({}, True),
        ({"instruments": [Watches()]}, True),
        ({"instruments": [Counts()]}, False),
        ({"instruments": [Follows()]}, False),
        ({"value_serializer": bytes}, False),
        ({"key_serializer": bytes}, False),
    ],
)
async def test_where_each_message_needs_python_there_is_no_c(options: dict[str, Any], used: bool) -> None:
    assert ("send_nowait" in vars(await opened(**options))) == used


async def test_it_looks_like_the_method() -> None:
    """To `help`, editors and doubles."""
    producer = await opened()
    found, expected = (
        [(one.name, one.kind, one.default) for one in inspect.signature(call).parameters.values()]
        for call in (producer.send_nowait, Producer.send_nowait.__get__(producer))
    )
    assert found == expected
    assert "Accept a message for delivery" in (producer.send_nowait.__doc__ or "")
    create_autospec(producer).send_nowait("topic", b"v", key=b"k")


async def test_without_the_rest_of_it_there_is_no_use() -> None:
    """What is no part of a producer is refused, or raises when it is used."""
    producer = await opened()
    parts = {
        "room": producer._room, "intake": producer._intake, "ledger": producer._intake.ledger,
        "topics": producer._topics, "queue": deque(), "clock": float, "read_wall_clock": float, "token": None,
        "current_token": lambda: None, "send_nowait": lambda *_: 1 / 0,
        "offer": lambda *_: 1 / 0, "accept_item": lambda *_: 1 / 0,
    }  # fmt: skip
    for name in parts:
        with pytest.raises(TypeError):
            compiled.Sender(**{one: part for one, part in parts.items() if one != name})
    for name, wrong in {
        "room": None, "intake": producer._room, "ledger": object(), "topics": [], "queue": None,
    }.items():  # fmt: skip
        with pytest.raises((TypeError, AttributeError)):
            compiled.Sender(**{**parts, name: wrong})
    producer._room.reopen()
    producer._intake.millisecond_ends = 1.0
    for name, wrong in {
        "topics": {"topic": None}, "clock": lambda: "noon", "current_token": lambda: 5, "clock ": None,
    }.items():  # fmt: skip
        sender = compiled.Sender(**{**parts, name.strip(): wrong})
        with pytest.raises((ZeroDivisionError, TypeError)):
            sender.send_nowait("topic", b"v")
    assert not parts["queue"]


# -- Python code that runs in between ----------------------------------------------------------------------


class Clock:
    """Does something when it is read for the first time."""

    def __init__(self, act: Callable[[], object]) -> None:
        self._act = act

    def __call__(self) -> float:
        act, self._act = self._act, lambda: None
        act()
        return 0.0


def sender_with(producer: Producer[Any, Any], **parts: Any) -> Any:
    """One that finds everything usual."""
    producer._room.wake_at = 1000
    producer._intake.millisecond_ends = 1.0
    return compiled.Sender(
        **{
            "room": producer._room,
            "intake": producer._intake,
            "ledger": producer._intake.ledger,
            "topics": producer._topics,
            "queue": producer._room.queue,
            "clock": lambda: 0.0,
            "read_wall_clock": producer._intake.read_wall_clock,
            "token": None,
            "current_token": lambda: None,
            "send_nowait": Producer.send_nowait.__get__(producer),
            "offer": Producer._offer.__get__(producer),
            "accept_item": Producer._accept_item.__get__(producer),
            **parts,
        }
    )


async def test_a_clock_that_sends() -> None:
    """What it sends comes first, and both count."""
    async with open_fake(FakeClient(automatic=True)) as producer:
        sender_with(producer, clock=Clock(lambda: producer.send_nowait("topic", b"1"))).send_nowait(
            "topic", b"2"
        )
        assert [entry[VALUE] for entry in producer._room.queue] == [b"1", b"2"]
        check_sums(producer)
        assert producer.statistics().unsettled_bytes == 2 * 37


async def test_a_clock_that_aborts() -> None:
    async with open_fake(FakeClient(automatic=True)) as producer:
        with pytest.raises(ProducerClosed):
            sender_with(producer, clock=Clock(producer.abort)).send_nowait("topic", b"v")
        assert producer.statistics().accepted == 0


async def test_a_clock_that_changes_the_headers() -> None:
    """Those of the call are sent."""
    headers: list[Any] = [("h", b"v")]
    async with open_fake(FakeClient(automatic=True)) as producer:
        sender_with(producer, clock=Clock(headers.clear)).send_nowait("topic", b"v", headers=headers)
        assert [entry[HEADERS] for entry in producer._room.queue] == [(("h", b"v"),)]


async def test_a_clock_that_makes_the_topic_forgotten() -> None:
    """It is unknown then, which Python deals with."""
    async with open_fake(FakeClient(automatic=True)) as producer:
        sender_with(producer, clock=Clock(producer._topics.clear)).send_nowait("topic", b"v")
        assert producer._topics["topic"].unsettled == 1


async def test_an_error_of_the_clock_leaves() -> None:
    def fail() -> None:
        raise KeyboardInterrupt

    async with open_fake(FakeClient(automatic=True)) as producer:
        for name in ("clock", "current_token"):
            with pytest.raises(KeyboardInterrupt):
                sender_with(producer, **{name: Clock(fail)}).send_nowait("topic", b"v")
        assert producer.statistics().accepted == 0


async def test_in_another_run_it_is_left_to_python() -> None:
    """Which has words for it."""
    async with open_fake(FakeClient(automatic=True)) as producer:
        parts = {"send_nowait": lambda *_: "Python", "offer": lambda *_: "Python"}
        sender = sender_with(producer, current_token=object, **parts)
        assert sender.send_nowait("topic", b"v") == "Python"
        assert sender.offer("topic", b"v", None, None, None, None) == "Python"
        assert producer.statistics().accepted == 0


async def test_a_finalizer_that_sends() -> None:
    """The garbage collector runs where an entry is made. What its finalizers send, and cut, is whole too."""

    class Sends:
        def __init__(self) -> None:
            self.itself = self

        def __del__(self) -> None:
            producer.send_nowait("topic", b"finalizer")
            producer._intake.ledger.cut(producer._room.accepted)

    threshold = gc.get_threshold()
    client = FakeClient()
    async with open_fake(client) as producer:
        producer.send_nowait("topic", b"first")
        sent = 1
        try:
            for distance in range(1, 60):
                gc.collect()
                Sends()
                gc.set_threshold(distance)
                for _ in range(60):
                    producer.send_nowait("topic", b"v")
                    sent += 1
                gc.set_threshold(*threshold)
                await producer_turn(producer, client)
        finally:
            gc.set_threshold(*threshold)
        client.automatic = True
    assert producer.statistics().delivered >= sent


async def producer_turn(producer: Producer[Any, Any], client: FakeClient) -> None:
    """Deliver everything: that fails where a run is counted wrong."""
    producer.deliver_nowait()
    await settle_down()
    client.acknowledge()
    await settle_down()
    check_sums(producer)
    assert producer.statistics().unsettled_bytes == 0


async def test_nothing_is_left_behind() -> None:
    """Of what was given, each reference is given back, whether it was sent or refused."""
    given: list[Any] = [b"value" * 9, b"key" * 9, ("name" * 9, b"header" * 9), 2**30 + 7, 10**12 + 7]
    value, key, pair, partition, stamp = given
    client = FakeClient(automatic=True)
    async with open_fake(client) as producer:
        before = [sys.getrefcount(one) for one in given]
        for headers in ([pair], (pair, pair), None, [pair, None]):
            for _ in range(100):
                with contextlib.suppress(TypeError):
                    producer.send_nowait(
                        "topic", value, key=key, headers=headers, partition=partition, timestamp_ms=stamp
                    )
                with contextlib.suppress(TypeError):
                    producer.send_nowait("topic", value, key=key, headers=headers, nonsense=stamp)  # type: ignore[call-arg]
            await producer.flush()
        del headers
        client.submitted.clear()
        await settle_down()
        assert [sys.getrefcount(one) for one in given] == before
