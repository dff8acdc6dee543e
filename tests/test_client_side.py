"""What goes wrong on the client's side: its machine, its resolver, its clock, and what it is told of brokers.

What asks for `place` takes place on the embedded broker and on a real Kafka. Each ends with the check of the
history, and prints its figures: ``pytest -s``. Programs that are stopped, or that have few descriptors, run
in processes of their own.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_kprod._intake
from tests.client_side import NAME, Embedded, Place, Real, advertised_ports, listeners, log_of
from tests.cycles import no_more_descriptors
from tests.kafka.cluster import Cluster, Record, wait_until
from tests.kafka.conftest import own
from tests.kafka.helpers import until
from tests.kafka.history import History
from tests.modes import OpenProducer
from tests.scripted_cluster import ScriptedCluster, open_on
from trio_kprod.testing import Proxy, open_broker, open_proxy

ROOT = Path(__file__).parent.parent

#: Seconds that no program needs.
PATIENCE = 100

#: How many seconds a process stands still. If it is a minute or more, the process has the default timeouts.
ASLEEP = float(os.environ.get("ASLEEP", "0.6"))
TIMEOUTS = "short" if ASLEEP < 60 else "default"

#: How many producers are many.
COUNT = int(os.environ.get("PRODUCERS", "100"))

in_both = pytest.mark.parametrize("where", ["thread", "loop"])


@pytest.fixture(scope="module")
def ports() -> dict[str, int]:
    return advertised_ports()


@pytest.fixture(scope="module")
def node(ports: dict[str, int]) -> Iterator[Cluster]:
    """A node for `Real`."""
    yield from own(listeners=listeners(ports))


@pytest.fixture
def real(node: Cluster, ports: dict[str, int]) -> Real:
    return Real(node, ports)


@pytest.fixture(params=["embedded", pytest.param("kafka", marks=pytest.mark.kafka)])
def place(request: pytest.FixtureRequest) -> Iterator[Place]:
    if request.param == "kafka":
        yield request.getfixturevalue("real")
    else:
        with open_broker() as broker:
            yield Embedded(broker)


class Program:
    """A running program of `tests.programs`."""

    def __init__(self, name: str, *arguments: str) -> None:
        command = [sys.executable, "-m", f"tests.programs.{name}", *arguments]
        self._process = subprocess.Popen(
            command,
            cwd=ROOT,
            encoding="utf-8",
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )

    def stop(self) -> None:
        """Stop it, as SIGSTOP does, and wait until it stands still."""
        self._process.send_signal(signal.SIGSTOP)
        os.waitid(os.P_PID, self._process.pid, os.WSTOPPED | os.WNOWAIT)

    def go_on(self) -> None:
        self._process.send_signal(signal.SIGCONT)

    def says(self) -> str:
        """The next line that it prints."""
        assert self._process.stdout is not None
        return self._process.stdout.readline()

    def end(self) -> str:
        """Let its standard input end, and return what it has printed by its own end."""
        printed, logged = self._process.communicate(timeout=PATIENCE)
        print(printed, logged)
        assert self._process.returncode == 0
        return printed

    def kill(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def running(name: str, *arguments: str) -> Iterator[Program]:
    program = Program(name, *arguments)
    try:
        yield program
    finally:
        program.kill()


def tell(history: History, topic: str, log: list[Record], recovered: float, left: float) -> None:
    """Check what is in the log, and print the figures."""
    print(f"{history.judge(topic, log)}; recovered after {recovered:.2f} s, left after {left:.2f} s")


# ---------------------------------------------------------------------------------------------------------
# A process that stands still


@in_both
def test_a_process_that_is_stopped_for_longer_than_every_timeout(place: Place, where: str) -> None:
    """As a laptop sleeps, and may find its connections dead when it wakes up."""
    with place.link() as link, running("steady", link.servers, place.topic, TIMEOUTS, where) as program:
        link.slow_down()
        sleep(place, program)
        sleep(place, program, link.cut)
        printed = program.end()
    assert "lost 0, untold 0, duplicates 0, out of order 0" in printed


def sleep(place: Place, program: Program, meanwhile: Callable[[], object] = lambda: None) -> None:
    """Stop it in the middle of deliveries, and wait until it delivers again."""
    wait_for_more(place, 20)
    program.stop()
    meanwhile()
    time.sleep(ASLEEP)  # nothing is waited for: to stand still for so long is the fault itself
    asleep = place.count()
    program.go_on()
    awake = time.monotonic()
    wait_until(lambda: place.count() > asleep, "it delivers again")
    print(f"delivers {time.monotonic() - awake:.2f} s after it goes on")


def wait_for_more(place: Place, count: int) -> None:
    wanted = place.count() + count
    wait_until(lambda: place.count() >= wanted, f"{count} more are written")


@in_both
def test_a_process_that_gets_little_of_the_processor(place: Place, where: str) -> None:
    """A twentieth of it, in slices, while its timeouts go on."""
    with running("steady", place.servers, place.topic, "short", where) as program:
        wait_for_more(place, 20)
        wanted = place.count() + 100
        deadline = time.monotonic() + PATIENCE
        while place.count() < wanted:
            assert time.monotonic() < deadline
            program.stop()
            time.sleep(0.02)
            program.go_on()
            time.sleep(0.001)
        printed = program.end()
    assert "lost 0, untold 0, duplicates 0, out of order 0" in printed


# ---------------------------------------------------------------------------------------------------------
# Brokers that tell a wrong address


async def test_a_broker_advertises_an_address_where_nobody_is(
    place: Place, open_producer: OpenProducer, caplog: pytest.LogCaptureFixture
) -> None:
    """The log and the error name that address, and say whose setting it is."""
    history = History("a wrong advertised listener")
    with place.advertises_nowhere() as (servers, address):
        with pytest.raises(trio_kprod.DeliveryFailed) as caught:
            async with open_producer(servers, shutdown_timeout=0.5) as producer:
                await history.send(producer, place.topic, b"key")
                leaves_at = trio.current_time()
        left = trio.current_time() - leaves_at
    history.undelivered(caught.value.undelivered)
    tell(history, place.topic, place.log(), 0, left)
    (told,) = caught.value.undelivered
    assert not told.maybe_written
    hint = "the cluster advertises this address (advertised.listeners): clients must be able to reach it"
    for text in (str(caught.value), str(told.cause), caplog.text):
        assert "{}:{}".format(*address) in text
        assert hint in text


async def test_one_of_two_brokers_advertises_a_wrong_address(
    autojump_clock: trio.testing.MockClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The other one gets its messages at once, and those of this one wait until it can be reached."""
    cluster = ScriptedCluster()
    node = cluster.nodes[2]
    right, node.address, node.listening = node.address, ("nowhere", 9092), False
    history = History("one of two advertises a wrong address")
    async with open_on(cluster, bootstrap=[1], on_undelivered=history.note) as producer:
        for number in range(20):
            await history.send(producer, "t", partition=number % 2)
        producer.deliver_nowait()
        await cluster.store.records_arrived("t", 10)
        await trio.sleep(30)
        assert producer.statistics().delivered == 10
        assert "nowhere:9092: connecting: " in caplog.text
        assert "(advertised.listeners)" in caplog.text
        node.address, node.listening = right, True
        mended_at = trio.current_time()
        await producer.flush()
        recovered, leaves_at = trio.current_time() - mended_at, trio.current_time()
    tell(history, "t", log_of(cluster.store, "t"), recovered, trio.current_time() - leaves_at)


# ---------------------------------------------------------------------------------------------------------
# A name whose address changes


class Resolver:
    """Answers for `NAME` as it is told; for all else as the system does."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.address: str | None = None
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in (NAME, NAME.encode()):
            return self._real(host, *args, **kwargs)
        if self.address is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._real(self.address, *args, **kwargs)


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "is_silent"])
async def test_a_name_whose_address_changes(
    place: Place,
    open_producer: OpenProducer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    silent: bool,
) -> None:
    """A broker moves; its name is looked up again for each connection, so nobody has to open anything again.

    The old address refuses, and the name has none for a while; or the old address says nothing any more, as
    when a machine is gone.
    """
    history = History("a name whose address changes")
    resolver = Resolver(monkeypatch)
    broker, port = place.advertises_name()
    async with AsyncExitStack() as stack:
        old = await stack.enter_async_context(open_proxy(broker, host="127.0.0.2", port=port))
        new = await stack.enter_async_context(open_proxy(broker, host="127.0.0.3", port=port))
        resolver.address = "127.0.0.2"
        async with open_producer(
            f"{NAME}:{port}", request_timeout_ms=300, delivery_interval=0.01
        ) as producer:
            await history.send(producer, place.topic, b"key")
            await producer.flush()
            move_away(old, silent=silent)
            await history.send(producer, place.topic, b"key")
            if not silent:
                resolver.address = None
                await until(lambda: "Name or service not known" in caplog.text)
            resolver.address = "127.0.0.3"
            moved_at = trio.current_time()
            await producer.flush()
            recovered = trio.current_time() - moved_at
            await history.send(producer, place.topic, b"key")
            leaves_at = trio.current_time()
        left = trio.current_time() - leaves_at
    assert new.connections_accepted > 0
    tell(history, place.topic, place.log(), recovered, left)


def move_away(proxy: Proxy, *, silent: bool) -> None:
    if silent:
        proxy.silence()
    else:
        proxy.stop_listening()
        proxy.disconnect_all()


# ---------------------------------------------------------------------------------------------------------
# The wall clock


async def test_a_wall_clock_that_is_set_back_and_forth(
    place: Place,
    open_producer: OpenProducer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Time stamps follow it; deliveries do not mind, and nothing is logged of it."""
    history = History("a wall clock that is set back and forth")
    jumps = [0, 86_400, -86_400, 3600, -1, 0]
    clock = WallClock(monkeypatch)
    async with open_producer(place.servers, delivery_interval=0.005) as producer:
        for jump in jumps:
            await clock.jump(jump)
            for _ in range(20):
                await history.send(producer, place.topic, b"key")
            await until(lambda: producer.statistics().delivered == history.sent)
        leaves_at = trio.current_time()
    left = trio.current_time() - leaves_at
    told = [record.message for record in caplog.records if record.levelno > logging.INFO]
    log = place.log()
    tell(history, place.topic, log, 0, left)
    for jump, record in zip((jump for jump in jumps for _ in range(20)), log, strict=True):
        assert abs(record.timestamp_ms / 1000 - time.time() - jump) < PATIENCE
    assert told == []


@pytest.mark.kafka
async def test_a_wall_clock_that_is_ahead_of_what_kafka_takes(
    real: Real,
    open_producer: OpenProducer,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """By itself, a real Kafka refuses what comes from tomorrow; that is told, and what to look at."""
    history, topic = History("a wall clock that is a day ahead"), real.cluster.new_topic()
    clock = WallClock(monkeypatch)
    async with open_producer(real.servers, on_undelivered=history.note) as producer:
        for jump in (0, 86_400, 0):
            await clock.jump(jump)
            for _ in range(20):
                await history.send(producer, topic, b"key")
    told = history.told
    assert len(told) == 20
    assert not any(one.maybe_written for one in told)
    assert "INVALID_TIMESTAMP" in str(told[0].cause)
    assert "(message.timestamp.before.max.ms, .after.max.ms)" in caplog.text
    history.check(real.cluster, topic)


class WallClock:
    """The time of day, for the producer, as someone sets it."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._monkeypatch = monkeypatch
        self._seconds, self._nanoseconds = time.time, time.time_ns

    async def jump(self, by: int) -> None:
        """Let it be `by` seconds ahead of what it is."""
        self._monkeypatch.setattr(time, "time", lambda: self._seconds() + by)
        self._monkeypatch.setattr(time, "time_ns", lambda: self._nanoseconds() + by * 10**9)
        self._monkeypatch.setattr(trio_kprod._intake, "time_ns", time.time_ns)
        await trio.sleep(0.002)  # the producer reads the clock once a millisecond


# ---------------------------------------------------------------------------------------------------------
# Descriptors, threads, memory


@in_both
def test_no_descriptor_is_left_for_a_connection(place: Place, where: str) -> None:
    """The log, instruments and errors name it, attempts keep their pace, and in the end all is delivered."""
    with place.link() as link, running("few_descriptors", link.servers, place.topic, where) as program:
        assert program.says() == "full\n"
        link.cut()
        printed = program.end()
    assert "lost 0, untold 0, duplicates 0, out of order 0" in printed


async def test_no_descriptor_is_left_for_the_loop_of_a_client() -> None:
    """That is no bug of ours, and not told as one."""
    with (
        no_more_descriptors(),
        pytest.raises(trio_kprod.ConnectFailed, match=r"cannot start .*Too many open"),
    ):
        async with trio_kprod.open_producer("127.0.0.1:9092"):
            pytest.fail("must not be entered")


async def test_no_thread_is_left_for_a_client(monkeypatch: pytest.MonkeyPatch) -> None:
    async def start(*_: Any, **__: Any) -> None:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(trio.to_thread, "run_sync", start)
    with pytest.raises(trio_kprod.ConnectFailed, match=r"cannot start .*can't start new thread"):
        async with trio_kprod.open_producer("127.0.0.1:9092"):
            pytest.fail("must not be entered")


@in_both
def test_many_producers_in_one_process(place: Place, where: str) -> None:
    """All deliver, all close, and nothing is left of them."""
    with running("many", place.servers, place.topic, str(COUNT), where) as program:
        printed = program.end()
    assert f"sent {2 * COUNT}, in log {2 * COUNT}" in printed
