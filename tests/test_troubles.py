"""What goes wrong can be seen: in the log, in errors, in counts. (The client's `_troubles`, the core's.)"""

from __future__ import annotations

import errno
import logging
import re
import ssl
import threading
from collections.abc import Callable
from typing import Any, Literal

import pytest
import trio
from trio.testing import MockClock

import trio_kprod
from trio_kprod._client._diagnosis import Diagnosis
from trio_kprod._client._handshake import SetupFailed
from trio_kprod._client._troubles import TroubleLog
from trio_kprod._instruments import Instruments
from trio_kprod.testing import MemoryBroker, open_memory_producer
from trio_kprod.testing._memory import MemoryNetwork

from .scripted_cluster import Asked, ScriptedCluster, framed, open_on
from .scripted_peer import make_endpoints

LOGGER = logging.getLogger("trio_kprod.tests.troubles")


def said(caplog: pytest.LogCaptureFixture, at_least: int = logging.INFO) -> list[tuple[str, str]]:
    """What was logged, but for connections that were made."""
    return [
        (one.levelname, one.getMessage())
        for one in caplog.records
        if one.levelno >= at_least and not one.getMessage().startswith("connected to")
    ]


@pytest.fixture(autouse=True)
def all_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)


# ---------------------------------------------------------------------------------------------------------
# How often


class Now:
    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def now() -> Now:
    return Now()


@pytest.fixture
def log(now: Now) -> TroubleLog:
    return TroubleLog(LOGGER, now, lambda: 7)


def test_one_warning_a_minute_and_the_end(
    log: TroubleLog, now: Now, caplog: pytest.LogCaptureFixture
) -> None:
    """Reminders say how long it has lasted and how much waits."""
    for _ in range(125):
        log.trouble("b:1", "refused")
        now.now += 1
    log.over("b:1", "responds again")
    log.over("b:1", "responds again")
    assert said(caplog) == [
        ("WARNING", "b:1: refused"),
        ("WARNING", "b:1: refused (for 60 s now; 7 messages wait)"),
        ("WARNING", "b:1: refused (for 120 s now; 7 messages wait)"),
        ("WARNING", "b:1: responds again, after 125 s"),
    ]
    assert len(caplog.records) == 126


def test_each_new_reason_is_a_warning(log: TroubleLog, now: Now, caplog: pytest.LogCaptureFixture) -> None:
    """But not the same one again within the minute, however they alternate. Numbers make no difference."""
    for reason in (
        "refused",
        "expired",
        "refused",
        "expired",
        "no response within 3 s",
        "no response within 4 s",
    ):
        log.trouble("b:1", reason)
    assert said(caplog, logging.WARNING) == [
        ("WARNING", "b:1: refused"),
        ("WARNING", "b:1: expired"),
        ("WARNING", "b:1: no response within 3 s"),
    ]


def test_a_flood_of_reasons_hides_nothing_final(
    log: TroubleLog, now: Now, caplog: pytest.LogCaptureFixture
) -> None:
    """Ten within a minute are enough, but for what will not pass by itself."""
    for letter in "abcdefghijklmnopqrstuvwxyz":
        log.trouble("b:1", letter)
    log.trouble("b:1", "certificate has expired", final=True)
    log.trouble("b:1", "certificate has expired", final=True)
    assert [text for _, text in said(caplog)] == [
        *[f"b:1: {letter}" for letter in "abcdefghij"],
        "b:1: certificate has expired",
    ]


def test_what_passes_quickly_is_no_warning(
    log: TroubleLog, now: Now, caplog: pytest.LogCaptureFixture
) -> None:
    """A leader moves: nobody needs to know, at its end neither."""
    log.trouble("topic 't'", "moved", patience=1)
    now.now += 0.5
    log.trouble("topic 't'", "moved", patience=1)
    log.over("topic 't'", "acknowledged again")
    assert said(caplog) == []
    now.now += 60
    log.trouble("topic 't'", "moved", patience=1)
    now.now += 1.25
    log.trouble("topic 't'", "moved", patience=1)
    log.over("topic 't'", "acknowledged again")
    assert said(caplog) == [
        ("WARNING", "topic 't': moved (for 1.2 s now; 7 messages wait)"),
        ("WARNING", "topic 't': acknowledged again, after 1.2 s"),
    ]


def test_what_comes_back_at_once_is_the_same_trouble(
    log: TroubleLog, now: Now, caplog: pytest.LogCaptureFixture
) -> None:
    """A broker that responds and closes, again and again, does not flood the log."""
    for _ in range(90):
        log.trouble("b:1", "closed")
        log.over("b:1", "responds again")
        now.now += 1
    assert [level for level, _ in said(caplog)] == ["WARNING"] * 4
    now.now += 5
    log.trouble("b:1", "closed")
    assert said(caplog)[-1] == ("WARNING", "b:1: closed")


def test_an_end_that_nobody_saw_is_not_told(log: TroubleLog, caplog: pytest.LogCaptureFixture) -> None:
    log.trouble("topic 't'", "no leader")
    log.over("topic 't'", "")
    assert said(caplog) == [("WARNING", "topic 't': no leader")]


def test_an_event_is_a_warning_once_a_minute(
    log: TroubleLog, now: Now, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(61):
        log.event("quota at b:1", "used up")
        now.now += 1
    assert said(caplog, logging.WARNING) == [("WARNING", "quota at b:1: used up")] * 2


def test_events_are_forgotten(log: TroubleLog, now: Now) -> None:
    """A cluster that replaces its brokers for ever does not use more and more memory."""
    for number in range(5000):
        log.event(f"quota at b:{number}", "used up")
        now.now += 1
    assert len(log._events) <= 60


def test_the_trouble_of_a_broker_that_was_removed_is_forgotten() -> None:
    """Nothing will ever say that it is over."""
    endpoints = make_endpoints()

    async def main() -> None:
        for number in range(3000):
            address = ("b", number)
            endpoints.learn({1: address})
            endpoints.tell_failure(endpoints.pace(address, 1), SetupFailed("connecting", Diagnosis("down")))

    trio.run(main)
    assert len(endpoints.log._troubles) <= 1001


def test_subjects_whose_trouble_is_over_are_forgotten(log: TroubleLog) -> None:
    """A program that makes up topics does not use more and more memory."""
    log.trouble("stays", "down")
    for number in range(5000):
        log.trouble(f"topic '{number}'", "unknown")
        log.over(f"topic '{number}'", "")
    assert len(log._troubles) <= 1001
    assert "stays" in log._troubles


# ---------------------------------------------------------------------------------------------------------
# Refusals


@pytest.mark.parametrize(
    ("error", "text"),
    [
        (
            "NOT_ENOUGH_REPLICAS",
            r"NOT_ENOUGH_REPLICAS (19); fewer replicas are in sync than min.insync.replicas",
        ),
        ("NOT_LEADER_OR_FOLLOWER", "NOT_LEADER_OR_FOLLOWER (6); leadership is moving"),
        ("LEADER_NOT_AVAILABLE", "LEADER_NOT_AVAILABLE (5); the partition has no leader"),
        ("KAFKA_STORAGE_ERROR", "KAFKA_STORAGE_ERROR (56); a disk of the broker has failed"),
    ],
)
async def test_a_broker_that_refuses_is_logged(
    error: str, text: str, autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """With topic, partition, Kafka's name and what to look at; once a minute; and when it is over."""
    broker = MemoryBroker(topics={"orders": 1})
    rule = broker.answer("Produce", error=error, times=None)
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        producer.send_nowait("orders", b"one")
        await trio.sleep(2)
        ((level, line),) = said(caplog)
        assert level == "WARNING"
        assert line.startswith(f"topic 'orders': partition 0: {text}")
        assert line.endswith("s now; 1 messages wait)")
        await trio.sleep(180)
        levels = [level for level, _ in said(caplog)]
        assert levels in (["WARNING"] * 3, ["WARNING"] * 4)
        rule.remove()
        await producer.flush()
    level, line = said(caplog)[-1]
    assert level == "WARNING"
    assert line.startswith("topic 'orders': messages are acknowledged again, after 18")


async def test_partitions_without_leader_are_logged(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing is sent, so no broker refuses; one line tells of all of them."""
    cluster = ScriptedCluster(nodes=1, partitions=3)
    (node,) = cluster.nodes.values()

    async def leaderless(asked: Asked) -> bytes | None:
        if asked.api != "Metadata":
            return None
        response = await asked.good()
        for topic in response.topics:
            for partition in topic.partitions:
                partition.leader_id = -1
        return framed(asked.encode(response))

    node.behave_like(leaderless)
    with pytest.raises(trio_kprod.DeliveryFailed, match="LEADER_NOT_AVAILABLE") as caught:
        async with open_on(cluster, delivery_threshold=1, shutdown_timeout=5) as producer:
            for partition in range(3):
                producer.send_nowait("t", b"x", partition=partition)
            producer.send_nowait("t", b"keyless")
    assert all(isinstance(cause_of(one), trio_kprod.Refused) for one in caught.value.undelivered)
    warnings = [line for level, line in said(caplog) if level == "WARNING"]
    assert len(warnings) == 1
    assert "topic 't': partition 0 and 2 more: LEADER_NOT_AVAILABLE (5)" in warnings[0]


def cause_of(undelivered: trio_kprod.Undelivered) -> BaseException | None:
    return undelivered.cause.__cause__


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"shutdown_timeout": 5}, trio_kprod.DeliveryAborted),
        ({"delivery_timeout": 5}, trio_kprod.DeliveryTimedOut),
        ({"max_retries": 3}, trio_kprod.RetriesExhausted),
    ],
)
@pytest.mark.parametrize("how", ["refused", "disconnected", "unreachable", "silent"])
async def test_errors_carry_the_last_trouble_of_their_message(
    options: dict[str, Any], kind: type[Exception], how: str, autojump_clock: MockClock
) -> None:
    """In the text and as `__cause__`; a message of another partition has another one, or none."""
    broker = MemoryBroker(topics={"t": 1, "good": 1})
    if how == "unreachable" and kind is trio_kprod.RetriesExhausted:
        return  # waiting for a connection is no try
    if how == "refused":
        broker.answer("Produce", error="NOT_ENOUGH_REPLICAS", topic="t", times=None)
    elif how == "disconnected":
        broker.drop_connections("request", "Produce", topic="t", times=None)
    elif how == "silent":
        broker.silence("Produce", topic="t")
        options = {**options, "request_timeout_ms": 1000}
    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_memory_producer(broker, delivery_threshold=1, **options) as producer:
            if how == "unreachable":
                await producer.partitions_for("t")
                broker.stop_listening()
                broker.disconnect_all()
            producer.send_nowait("t", b"x")
            await trio.sleep(10)
    (undelivered,) = caught.value.undelivered
    assert type(undelivered.cause) is kind
    cause = cause_of(undelivered)
    expected = {
        "refused": (trio_kprod.Refused, "NOT_ENOUGH_REPLICAS (19)"),
        "disconnected": (trio_kprod.ConnectionLost, "the broker closed the connection"),
        "unreachable": (trio_kprod.ConnectionLost, "memory:9092: connecting: "),
        "silent": (trio_kprod.ConnectionLost, "no response to Produce within 1 s"),
    }
    kind_of_cause, text = expected[how]
    assert isinstance(cause, kind_of_cause)
    assert text in str(cause)
    assert text in str(undelivered.cause)


async def test_what_was_acknowledged_since_is_no_cause(autojump_clock: MockClock) -> None:
    """An old refusal does not explain what happens later."""
    broker = MemoryBroker(topics={"t": 1})
    broker.answer("Produce", error="NOT_ENOUGH_REPLICAS", times=2)
    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_memory_producer(broker, delivery_threshold=1, shutdown_timeout=2) as producer:
            await producer.send_and_wait("t", b"x")
            broker.silence("Produce")
            producer.send_nowait("t", b"y")
    (undelivered,) = caught.value.undelivered
    assert str(undelivered.cause) == "not acknowledged before shutdown_timeout (2 s) passed"
    assert cause_of(undelivered) is None


async def test_a_misspelt_topic_is_told_within_two_seconds(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """And the error says it, although `shutdown_timeout` is shorter than `topic_timeout`."""
    broker = MemoryBroker(auto_create_topics=False)
    with pytest.raises(trio_kprod.DeliveryFailed, match="does not know topic 'ordres'") as caught:
        async with open_memory_producer(broker, delivery_threshold=1) as producer:
            await producer.send_many("ordres", [b"x"] * 100)
            await trio.sleep(2)
            ((level, line),) = said(caplog)
            assert level == "WARNING"
            assert (
                "topic 'ordres': the cluster does not know topic 'ordres': UNKNOWN_TOPIC_OR_PARTITION (3)"
                in line
            )
            assert "is the name right? create the topic" in line
    assert all(isinstance(cause_of(one), trio_kprod.UnknownTopic) for one in caught.value.undelivered)


async def test_a_right_that_is_missing_is_told_at_once(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """By a warning a minute, however many messages fail; `on_undelivered` gets each."""
    broker = MemoryBroker(topics={"t": 1})
    broker.answer("Produce", error="TOPIC_AUTHORIZATION_FAILED", times=None)
    failed: list[trio_kprod.Undelivered] = []
    async with open_memory_producer(broker, delivery_threshold=1, on_undelivered=failed.append) as producer:
        for _ in range(70):
            producer.send_nowait("t", b"x")
            await trio.sleep(1)
    assert len(failed) == 70
    reason = "TOPIC_AUTHORIZATION_FAILED (29); grant the operation Write on the topic; messages were given up"
    assert said(caplog) == [
        ("WARNING", f"topic 't': partition 0: {reason}"),
        ("WARNING", f"topic 't': partition 0: {reason} (for 60 s now; 0 messages wait)"),
    ]


# ---------------------------------------------------------------------------------------------------------
# Connections


@pytest.fixture
def fail_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException | None], None]:
    """Connecting fails with this from now on."""
    works = MemoryNetwork.open_stream
    now: list[BaseException | None] = [None]

    async def open_stream(self: MemoryNetwork, host: str, port: int) -> trio.abc.Stream:
        if now[0] is not None:
            await trio.lowlevel.checkpoint()
            raise now[0]
        return await works(self, host, port)

    monkeypatch.setattr(MemoryNetwork, "open_stream", open_stream)

    def fail(error: BaseException | None) -> None:
        now[0] = error

    return fail


EXPIRED = ssl.SSLCertVerificationError(1, "certificate verify failed: certificate has expired")
EXPIRED.reason = "CERTIFICATE_VERIFY_FAILED"
EXPIRED.verify_code = 10
REFUSED = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


async def test_the_true_reason_of_an_outage_is_told(
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
    fail_with: Callable[[BaseException | None], None],
) -> None:
    """First connections are refused; then the broker is up, with a certificate that has expired."""
    broker = MemoryBroker()
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"x")
        fail_with(REFUSED)
        broker.disconnect_all()
        producer.send_nowait("t", b"y")
        await trio.sleep(20)
        fail_with(EXPIRED)
        await trio.sleep(50)
        fail_with(REFUSED)
        await trio.sleep(20)
        trouble = str(producer._delivery._client._brokers.trouble())
        fail_with(None)
        await producer.flush()
    assert "certificate has expired" in trouble
    assert "refused" not in trouble  # it passes, the certificate does not
    lines = [
        (level, line.removeprefix("memory:9092: "))
        for level, line in said(caplog)
        if "the broker closed the connection" not in line  # how it began
    ]
    assert lines[0] == ("WARNING", f"connecting: [Errno {errno.ECONNREFUSED}] Connection refused")
    assert lines[1][1].startswith(
        "TLS handshake: this client refuses the broker's certificate: certificate verify failed: certificate"
        " has expired; the broker's certificate has expired: renew it (for 2"
    )
    assert lines[1][1].endswith("s now; 1 messages wait)")
    assert [level for level, _ in lines] == ["WARNING"] * 4
    assert lines[-1][1].startswith("responds again, after 9")


@pytest.mark.parametrize("acks", ["all", 1, 0])
async def test_an_outage_of_ten_minutes(
    acks: Literal[0, 1, "all"], autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """How it begins, each minute for how long it has lasted and how much waits, and for how long it was."""
    broker = MemoryBroker()
    async with open_memory_producer(broker, acks=acks, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"x")
        began = trio.current_time()
        broker.stop_listening()
        broker.disconnect_all()
        for _ in range(600):
            producer.send_nowait("t", b"y")
            await trio.sleep_until(began := began + 1)
        broker.start_listening()
        await producer.flush()
        await trio.sleep(60)
    refused = rf"memory:9092: connecting: \[Errno {errno.ECONNREFUSED}\] Connection refused: memory:9092"
    patterns = ["memory:9092: the broker closed the connection", refused]
    patterns += [rf"{refused} \(for \d+ s now; \d+ messages wait\)"] * 9
    patterns += [r"memory:9092: responds again, after 60\d s"]
    lines = said(caplog)
    assert [level for level, _ in lines] == ["WARNING"] * len(patterns)
    assert all(re.fullmatch(pattern, line) for pattern, (_, line) in zip(patterns, lines, strict=True)), lines
    reminders = [re.findall(r"\d+ (?=s now|messages)", line) for _, line in lines[2:-1]]
    for minute, (age, waiting) in enumerate(reminders, 1):
        assert 60 * minute <= int(age) < 60 * minute + 2 * minute
        assert abs(int(waiting) - int(age)) <= 3  # a message each second
    assert len(caplog.records) < 3 * 600  # at DEBUG: each attempt to connect


async def test_the_error_names_what_is_final(
    autojump_clock: MockClock, fail_with: Callable[[BaseException | None], None]
) -> None:
    """Although a refused connection was the last that happened."""
    broker = MemoryBroker()
    with pytest.raises(trio_kprod.DeliveryFailed, match="certificate has expired"):
        async with open_memory_producer(broker, delivery_threshold=1, shutdown_timeout=3) as producer:
            await producer.send_and_wait("t", b"x")
            fail_with(EXPIRED)
            broker.disconnect_all()
            producer.send_nowait("t", b"y")
            await trio.sleep(5)
            fail_with(REFUSED)


async def test_no_guess_where_we_know_better(
    autojump_clock: MockClock,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """ "Perhaps this is a TLS port" is said of an address only that has never spoken Kafka's protocol."""
    broker = MemoryBroker()
    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_memory_producer(broker, delivery_threshold=1, shutdown_timeout=3) as producer:
            await producer.send_and_wait("t", b"x")
            broker.drop_connections(api="ApiVersions", times=None)
            broker.disconnect_all()
            producer.send_nowait("t", b"y")
            await trio.sleep(5)
    told = [str(caught.value), *(text for _, text in said(caplog, logging.DEBUG))]
    assert any("ApiVersions: the broker closed the connection" in text for text in told)
    assert not any("perhaps" in text for text in told)


# ---------------------------------------------------------------------------------------------------------
# Quotas


class Throttles(trio_kprod.Instrument):
    def __init__(self) -> None:
        self.told: list[tuple[str, float]] = []

    def throttled(self, *, broker: str, duration: float) -> None:
        self.told.append((broker, duration))


async def test_a_throttle_is_logged_counted_and_told(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """Once a minute in the log, each one to the hook and in the statistics."""
    cluster = ScriptedCluster(nodes=1)
    (node,) = cluster.nodes.values()
    instrument = Throttles()

    async def throttle(asked: Asked) -> bytes | None:
        if asked.api != "Produce":
            return None
        response = await asked.good()
        response.throttle_time_ms = 2500
        return framed(asked.encode(response))

    async with open_on(cluster, delivery_threshold=1, instruments=(instrument,)) as producer:
        node.behave_like(throttle)
        for _ in range(30):
            await producer.send_and_wait("t", b"x")
        now = producer.statistics()
    assert instrument.told == [("{}:{}".format(*node.address), 2.5)] * 30
    assert (now.throttles, now.throttled_time) == (30, 75.0)
    lines = said(caplog)
    assert [level for level, _ in lines] == ["WARNING"] * 2
    assert "quota at " in lines[0][1]
    assert "we pause for 2.5 s" in lines[0][1]


# ---------------------------------------------------------------------------------------------------------
# What users forget


async def test_the_end_of_a_block_is_logged_whoever_swallows_it(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """A framework may swallow the exception; one ERROR says how many, of which topics, and why."""
    broker = MemoryBroker(topics={"a": 1, "b": 1})
    broker.answer("Produce", error="TOPIC_AUTHORIZATION_FAILED", times=None)
    for swallowed in (trio_kprod.DeliveryFailed, ZeroDivisionError):
        caplog.clear()
        with pytest.raises(swallowed):
            async with open_memory_producer(broker) as producer:
                await producer.send_many("a", [b"1", b"2"])
                producer.send_nowait("b", b"3")
                if swallowed is ZeroDivisionError:
                    raise ZeroDivisionError
        ((_, line),) = said(caplog, logging.ERROR)
        assert line.startswith("the block has ended: 3 messages not delivered; the first, to ")
        assert "TOPIC_AUTHORIZATION_FAILED (29); by topic: 'a' 2, 'b' 1" in line


async def test_many_topics_are_counted(autojump_clock: MockClock, caplog: pytest.LogCaptureFixture) -> None:
    """The line stays readable."""
    broker = MemoryBroker()
    with pytest.raises(trio_kprod.DeliveryFailed):
        async with open_memory_producer(broker) as producer:
            for number in range(30):
                producer.send_nowait(f"t{number}", b"x")
            producer.abort()
    ((_, line),) = said(caplog, logging.ERROR)
    assert line.endswith("'t9' 1 and 20 more topics")


async def test_messages_that_nobody_delivers_are_warned_of(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """After five seconds, once, naming both settings; users of other clients expect to need neither."""
    async with open_memory_producer() as producer:
        await trio.sleep(60)
        assert said(caplog) == []
        await producer.send("t", b"x")
        await trio.sleep(4.9)
        assert said(caplog) == []
        await trio.sleep(0.2)
        ((level, line),) = said(caplog)
        assert level == "WARNING"
        assert "delivery_threshold" in line
        assert "delivery_interval" in line
        await producer.flush()
        producer.send_nowait("t", b"y")
        await trio.sleep(60)
        assert len(said(caplog)) == 1


@pytest.mark.parametrize("options", [{"delivery_threshold": 500}, {"delivery_interval": 30}])
async def test_who_has_set_one_is_not_warned(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture, options: dict[str, Any]
) -> None:
    async with open_memory_producer(**options) as producer:
        producer.send_nowait("t", b"x")
        await trio.sleep(20)
    assert said(caplog) == []


async def test_who_flushes_in_time_is_not_warned(
    autojump_clock: MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    async with open_memory_producer() as producer:
        for _ in range(10):
            producer.send_nowait("t", b"x")
            await trio.sleep(3)
            await producer.flush()
    assert said(caplog) == []


def test_a_misspelt_hook_is_told(caplog: pytest.LogCaptureFixture) -> None:
    """`ack_message` is ruby-kafka's own name. Other methods are nobody's business."""

    class Mine(trio_kprod.Instrument):
        def ack_message(self, **_: object) -> None:
            """Never called."""

        def report(self) -> None:
            """A method of the user's own."""

        def _errors(self) -> None:
            """Private."""

    Instruments((Mine(),), LOGGER)
    assert said(caplog) == [
        ("WARNING", "Mine.ack_message is no hook, so nothing calls it; did you mean ack_messages?")
    ]


# ---------------------------------------------------------------------------------------------------------
# What instruments count


class Sent(trio_kprod.Instrument):
    def __init__(self) -> None:
        self.counts: list[tuple[int, int]] = []
        self.topic_errors: list[tuple[str, str]] = []

    def send_messages(self, *, message_count: int, sent_message_count: int, **_: object) -> None:
        self.counts.append((message_count, sent_message_count))

    def topic_error(self, *, topic: str, error: BaseException) -> None:
        self.topic_errors.append((topic, str(error)))


async def test_refused_messages_are_not_counted_as_sent(autojump_clock: MockClock) -> None:
    """A dashboard is not green during an outage; `topic_error` tells of each refusal."""
    broker = MemoryBroker(topics={"t": 2})
    broker.answer("Produce", error="NOT_ENOUGH_REPLICAS", partition=0, times=2)
    sent = Sent()
    async with open_memory_producer(broker, instruments=(sent,)) as producer:
        await producer.send_many("t", [b"1", b"2"])
        producer.send_nowait("t", b"3", partition=0)
        producer.send_nowait("t", b"4", partition=1)
        await producer.flush()
    assert sum(carried for carried, _ in sent.counts) > 4
    assert sum(acknowledged for _, acknowledged in sent.counts) == 4
    assert sent.topic_errors == [("t", "NOT_ENOUGH_REPLICAS (19)")] * 2


class Connections(trio_kprod.Instrument):
    def __init__(self) -> None:
        self.open = 0
        self.failed: list[BaseException] = []

    def connected(self, *, broker: str) -> None:
        self.open += 1

    def disconnected(self, *, broker: str, error: BaseException | None) -> None:
        self.open -= 1

    def connect_failed(self, *, broker: str, error: BaseException) -> None:
        self.failed.append(error)


async def test_open_connections_can_be_counted(autojump_clock: MockClock) -> None:
    """An attempt that failed is told by a hook of its own."""
    broker = MemoryBroker()
    connections = Connections()
    async with open_memory_producer(broker, instruments=(connections,), delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"1")
        assert connections.open == broker.connections
        broker.stop_listening()
        broker.disconnect_all()
        producer.send_nowait("t", b"2")
        await trio.sleep(5)
        assert connections.open == 0
        assert all("refused" in str(error) for error in connections.failed)
        assert len(connections.failed) >= 4
        broker.start_listening()


async def test_statistics_may_be_read_in_any_thread(autojump_clock: MockClock) -> None:
    """Also of a producer in virtual time."""
    async with open_memory_producer() as producer:
        producer.send_nowait("t", b"1")
        now = []
        thread = threading.Thread(target=lambda: now.append(producer.statistics()))
        thread.start()
        thread.join()
    assert now[0].oldest_age == 0


async def test_lost_requests_are_not_counted_as_sent(autojump_clock: MockClock) -> None:
    """And a lost connection is no error of the topic."""
    broker = MemoryBroker(topics={"t": 1})
    broker.drop_connections("append", "Produce")
    sent = Sent()
    async with open_memory_producer(broker, instruments=(sent,)) as producer:
        await producer.send_and_wait("t", b"1")
    assert sent.counts == [(1, 0), (1, 1)]
    assert sent.topic_errors == []


async def test_without_acknowledgements_what_was_written_counts(autojump_clock: MockClock) -> None:
    sent = Sent()
    async with open_memory_producer(instruments=(sent,), acks=0) as producer:
        await producer.send_and_wait("t", b"1")
    assert sent.counts == [(1, 1)]
