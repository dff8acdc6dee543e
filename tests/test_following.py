"""Instruments that follow single messages, and those that are given the producer."""

from __future__ import annotations

from typing import Any

import pytest
import trio

import trio_kprod
from trio_kprod._messages import Headers
from trio_kprod.testing import MemoryBroker, open_memory_producer

EVENTS = ("opened", "closed", "sending", "accepted", "rejected", "undelivered", "settled", "ack_messages")

pytestmark = pytest.mark.usefixtures("own_thread")


class Follower(trio_kprod.Instrument):
    """Notes what it is told, and adds these headers."""

    def __init__(self, adds: Any = None) -> None:
        self.adds = adds
        self.events: list[tuple[str, dict[str, Any]]] = []

    def sending(self, **payload: Any) -> Headers | None:
        self.events.append(("sending", payload))
        return self.adds  # type: ignore[no-any-return]

    def of(self, event: str) -> list[dict[str, Any]]:
        return [payload for name, payload in self.events if name == event]

    def names(self, number: int | None = None) -> list[str]:
        """Of all events, or of those of one message."""
        return [name for name, payload in self.events if number in (None, payload.get("number"))]


def _noting(event: str) -> Any:
    def note(self: Follower, **payload: Any) -> None:
        self.events.append((event, payload))

    return note


for _event in set(EVENTS) - {"sending"}:
    setattr(Follower, _event, _noting(_event))


async def test_the_life_of_each_message(autojump_clock: object) -> None:
    """From the arguments to the outcome, under one number; the batch is told first."""
    broker = MemoryBroker()
    follower = Follower()
    async with open_memory_producer(broker, instruments=(follower,)) as producer:
        producer.send_nowait("topic", b"one", key=b"k", headers=[("h", b"1")], partition=0, timestamp_ms=5)
        await producer.send("topic", b"two", partition=0)
        await producer.send_many("topic", [(b"k", b"three")])
        await producer.flush()
        record = await producer.send_and_wait("topic", b"four", partition=0)
    sendings = follower.of("sending")
    assert sendings[0] == {
        "number": sendings[0]["number"],
        "topic": "topic",
        "value": b"one",
        "key": b"k",
        "headers": [("h", b"1")],
        "partition": 0,
        "timestamp_ms": 5,
    }
    numbers = [sending["number"] for sending in sendings]
    assert len(set(numbers)) == 4
    for number in numbers:
        assert follower.names(number) == ["sending", "accepted", "settled"]
    messages = {told["number"]: told["message"] for told in follower.of("accepted")}
    assert [messages[number].value for number in numbers] == [b"one", b"two", b"three", b"four"]
    for told in follower.of("settled"):
        assert told["message"] == messages[told["number"]]
        assert told["undelivered"] is None
    first, *_, last = follower.of("settled")
    assert first["record"] == trio_kprod.RecordMetadata("topic", 0, 0, 5)
    assert last["record"] == record
    assert follower.names().index("ack_messages") < follower.names().index("settled")


async def test_headers_are_added(autojump_clock: object) -> None:
    """Those of each instrument, behind those of the caller; the size counts them."""
    broker = MemoryBroker()
    instruments = (Follower([("trace", b"1")]), Follower(), Follower((("state", None),)))
    async with open_memory_producer(broker, instruments=instruments) as producer:
        producer.send_nowait("topic", b"one", headers=[("mine", b"0")])
        await producer.send("topic", b"two")
        sizes = [told["message"].size for told in instruments[0].of("accepted")]
    one, two = broker.records("topic")
    assert list(one.headers) == [("mine", b"0"), ("trace", b"1"), ("state", None)]
    assert list(two.headers) == [("trace", b"1"), ("state", None)]
    assert sizes[0] == sizes[1] + len("mine") + 1 + 10


@pytest.mark.parametrize("adds", ["text", [("name", "text")], 5])
async def test_wrong_headers_of_an_instrument_harm_no_message(
    autojump_clock: object, adds: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """The instrument is told nothing any more, as if its hook had raised."""
    broker = MemoryBroker()
    wrong, right = Follower(adds), Follower([("trace", b"1")])
    async with open_memory_producer(broker, instruments=(wrong, right)) as producer:
        await producer.send_and_wait("topic", b"one")
        await producer.send_and_wait("topic", b"two")
    assert [list(record.headers) for record in broker.records("topic")] == [[("trace", b"1")]] * 2
    assert wrong.names() == ["opened", "sending"]
    assert right.names().count("settled") == 2
    assert "it is told nothing any more" in caplog.text


async def test_what_is_refused_is_rejected(autojump_clock: object) -> None:
    """Whatever the reason, the message that was announced gets an end, and nothing else."""
    broker = MemoryBroker()
    follower = Follower([("trace", b"1")])
    async with open_memory_producer(broker, instruments=(follower,), max_queue_size=1) as producer:
        with pytest.raises(TypeError):
            producer.send_nowait("topic", "text")  # type: ignore[arg-type]
        with pytest.raises(TypeError, match="headers"):
            producer.send_nowait("topic", b"one", headers="text")  # type: ignore[arg-type]
        with pytest.raises(trio_kprod.MessageTooLarge):
            await producer.send("topic", bytes(2_000_000))
        producer.send_nowait("topic", b"one")
        with pytest.raises(trio_kprod.BufferOverflow):
            producer.send_nowait("topic", b"two")
        with trio.CancelScope() as scope:
            scope.cancel()
            await producer.send("topic", b"cancelled before it was made")
        accepted = follower.of("accepted")
        broker.stop_listening()
        broker.disconnect_all()
        with trio.move_on_after(1):  # one fills the buffer, one the queue, one waits
            await producer.send_many("topic", [bytes(1000)] * 30_000)
        broker.start_listening()
    rejected = [type(told["error"]) for told in follower.of("rejected")]
    overflow = trio_kprod.BufferOverflow
    assert rejected == [TypeError, TypeError, trio_kprod.MessageTooLarge, overflow, trio.Cancelled]
    assert len(accepted) == 1
    for told in follower.of("rejected"):
        assert follower.names(told["number"]) == ["sending", "rejected"]
    assert len(follower.of("accepted")) == len(broker.records("topic")) == len(follower.of("settled"))


async def test_a_message_that_waited_is_accepted_before_it_is_settled(autojump_clock: object) -> None:
    """Even if it is given up in the very turn that admits it."""
    broker = MemoryBroker()

    class Aborting(Follower):
        def accepted(self, **payload: Any) -> None:
            self.events.append(("accepted", payload))
            if payload["message"].value == b"two":
                producer.abort()

    follower = Aborting()
    with pytest.raises(trio_kprod.DeliveryFailed):
        async with open_memory_producer(broker, instruments=(follower,), max_queue_size=1) as producer:
            producer.send_nowait("topic", b"one")
            await producer.send("topic", b"two")
    for told in follower.of("sending"):
        assert follower.names(told["number"]) == ["sending", "accepted", "settled"]


async def test_failures_are_told_by_the_batch_and_one_by_one(autojump_clock: object) -> None:
    """With the cause and what is known of the writing."""
    broker = MemoryBroker()
    broker.answer("Produce", error="TOPIC_AUTHORIZATION_FAILED")
    follower = Follower()
    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_memory_producer(broker, instruments=(follower,)) as producer:
            producer.send_nowait("topic", b"one", partition=0)
            producer.send_nowait("topic", b"two", partition=0)
    failures = caught.value.undelivered
    assert follower.of("undelivered") == [
        {
            "topic": "topic",
            "partition": 0,
            "message_count": 2,
            "cause": failures[0].cause,
            "maybe_written": False,
        }
    ]
    assert [told["undelivered"] for told in follower.of("settled")] == list(failures)
    assert [told["record"] for told in follower.of("settled")] == [None, None]
    assert follower.names()[-4:] == ["undelivered", "settled", "settled", "closed"]


async def test_the_producer_is_given_when_it_opens(autojump_clock: object) -> None:
    """It works in both hooks: open in the first, complete in the second."""
    counts = []

    class Polling(trio_kprod.Instrument):
        def opened(self, *, producer: trio_kprod.Producer) -> None:
            producer.send_nowait("topic", b"one")
            counts.append(producer.statistics().accepted)

        def closed(self, *, producer: trio_kprod.Producer) -> None:
            counts.append(producer.statistics().delivered)

    async with open_memory_producer(MemoryBroker(), instruments=(Polling(),)):
        assert counts == [1]
    assert counts == [1, 1]


async def test_a_producer_that_does_not_open_is_not_given(autojump_clock: object) -> None:
    """Neither hook: there is nothing to poll."""
    broker = MemoryBroker()
    broker.stop_listening()
    follower = Follower()
    with pytest.raises(trio_kprod.ConnectFailed):
        async with open_memory_producer(broker, instruments=(follower,), connect_timeout=1):
            raise AssertionError
    assert follower.events == []
