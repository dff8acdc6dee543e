"""What goes wrong on the client's side: its machine, its resolver, its clock, and what it is told of brokers.

Each ends with the check of the history, and prints its figures: ``pytest -s``. Programs that are stopped, or
that have few descriptors, run in processes of their own.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
import trio

import trio_kprod._intake
from tests.cycles import no_more_descriptors
from tests.kafka.cluster import Record
from tests.kafka.helpers import until
from tests.kafka.history import History
from tests.modes import OpenProducer
from tests.scripted_cluster import ScriptedCluster, open_on
from trio_kprod.testing import Broker, MemoryBroker, Proxy, open_broker, open_proxy

ROOT = Path(__file__).parent.parent

#: Seconds that no program needs.
PATIENCE = 100

#: How many producers are many.
COUNT = int(os.environ.get("PRODUCERS", "100"))

in_both = pytest.mark.parametrize("place", ["thread", "loop"])


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


def tell(history: History, broker: Broker | MemoryBroker, recovered: float, left: float) -> None:
    """Check what is in the log, and print the figures."""
    log = [
        Record(one.partition, one.offset, one.key, one.value, [], one.timestamp_ms)
        for one in broker.records("t")
    ]
    print(f"{history.judge('t', log)}; recovered after {recovered:.2f} s, left after {left:.2f} s")


# ---------------------------------------------------------------------------------------------------------
# A process that stands still


@in_both
def test_a_process_that_is_stopped_for_longer_than_every_timeout(place: str) -> None:
    """As a laptop sleeps, and may find its connections dead when it wakes up.

    Each answer takes its time, so there nearly always is one on its way.
    """
    with open_broker() as broker, running("steady", broker.bootstrap_servers, place) as program:
        broker.delay("Produce", 0.02, times=None, after_append=True)
        sleep(broker, program)
        sleep(broker, program, cut_off=True)
        printed = program.end()
    assert "lost 0, untold 0, duplicates 0, out of order 0" in printed


def sleep(broker: Broker, program: Program, *, cut_off: bool = False) -> None:
    """Stop it in the middle of deliveries, and wait until it delivers again."""
    broker.wait_records("t", len(broker.records("t")) + 20, PATIENCE)
    program.stop()
    if cut_off:
        broker.disconnect_all()
    time.sleep(0.6)  # nothing is waited for: to stand still for so long is the fault itself
    asleep = len(broker.records("t"))
    program.go_on()
    awake = time.monotonic()
    broker.wait_records("t", asleep + 1, PATIENCE)
    print(f"delivers {time.monotonic() - awake:.2f} s after it goes on")


@in_both
def test_a_process_that_gets_little_of_the_processor(place: str) -> None:
    """A twentieth of it, in slices, while its timeouts go on."""
    with open_broker() as broker, running("steady", broker.bootstrap_servers, place) as program:
        wanted = len(broker.wait_records("t", 20, PATIENCE)) + 100
        deadline = time.monotonic() + PATIENCE
        while len(broker.records("t")) < wanted:
            assert time.monotonic() < deadline
            program.stop()
            time.sleep(0.02)
            program.go_on()
            time.sleep(0.001)
        printed = program.end()
    assert "lost 0, untold 0, duplicates 0, out of order 0" in printed


# ---------------------------------------------------------------------------------------------------------
# Brokers that tell a wrong address


@contextmanager
def nobody_listens() -> Iterator[tuple[str, int]]:
    """An address that is taken, and where connections are refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()


async def test_a_broker_advertises_an_address_where_nobody_is(
    open_producer: OpenProducer, caplog: pytest.LogCaptureFixture
) -> None:
    """The log and the error name that address, and say whose setting it is."""
    history = History("a wrong advertised listener")
    with nobody_listens() as address:
        async with open_broker(advertised=address) as broker:
            servers = "{}:{}".format(*broker.address)
            with pytest.raises(trio_kprod.DeliveryFailed) as caught:
                async with open_producer(servers, shutdown_timeout=0.5) as producer:
                    await history.send(producer, "t", b"key")
                    leaves_at = trio.current_time()
            history.undelivered(caught.value.undelivered)
            tell(history, broker, 0, trio.current_time() - leaves_at)
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
    tell(history, cluster.store, recovered, trio.current_time() - leaves_at)


# ---------------------------------------------------------------------------------------------------------
# A name whose address changes


class Resolver:
    """Answers for `NAME` as it is told; for all else as the system does."""

    NAME = "kafka.test"

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.address: str | None = None
        self._real = socket.getaddrinfo
        monkeypatch.setattr(socket, "getaddrinfo", self._answer)

    def _answer(self, host: Any, *args: Any, **kwargs: Any) -> Any:
        if host not in (self.NAME, self.NAME.encode()):
            return self._real(host, *args, **kwargs)
        if self.address is None:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return self._real(self.address, *args, **kwargs)


@pytest.mark.parametrize("silent", [False, True], ids=["refuses", "is_silent"])
async def test_a_name_whose_address_changes(
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
    async with AsyncExitStack() as stack:
        broker = await stack.enter_async_context(open_broker())
        old = await stack.enter_async_context(open_proxy(broker.address, host="127.0.0.2"))
        port = old.address[1]
        new = await stack.enter_async_context(open_proxy(broker.address, host="127.0.0.3", port=port))
        broker.advertise(Resolver.NAME, port)
        resolver.address = "127.0.0.2"
        async with open_producer(
            f"{Resolver.NAME}:{port}", request_timeout_ms=300, delivery_interval=0.01
        ) as producer:
            await history.send(producer, "t", b"key")
            await producer.flush()
            move_away(old, silent=silent)
            await history.send(producer, "t", b"key")
            if not silent:
                resolver.address = None
                await until(lambda: "Name or service not known" in caplog.text)
            resolver.address = "127.0.0.3"
            moved_at = trio.current_time()
            await producer.flush()
            recovered = trio.current_time() - moved_at
            await history.send(producer, "t", b"key")
            leaves_at = trio.current_time()
        assert new.connections_accepted > 0
        tell(history, broker, recovered, trio.current_time() - leaves_at)


def move_away(proxy: Proxy, *, silent: bool) -> None:
    if silent:
        proxy.silence()
    else:
        proxy.stop_listening()
        proxy.disconnect_all()


# ---------------------------------------------------------------------------------------------------------
# The wall clock


async def test_a_wall_clock_that_is_set_back_and_forth(
    open_producer: OpenProducer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Time stamps follow it; deliveries do not mind, and nothing is logged of it."""
    history = History("a wall clock that is set back and forth")
    seconds, nanoseconds = time.time, time.time_ns
    jumps = [0, 86_400, -86_400, 3600, -1, 0]
    async with open_broker() as broker:
        async with open_producer(broker.bootstrap_servers, delivery_interval=0.005) as producer:
            for jump in jumps:
                monkeypatch.setattr(time, "time", lambda jump=jump: seconds() + jump)
                monkeypatch.setattr(time, "time_ns", lambda jump=jump: nanoseconds() + jump * 10**9)
                monkeypatch.setattr(trio_kprod._intake, "time_ns", time.time_ns)
                await trio.sleep(0.002)  # the producer reads the clock once a millisecond
                for _ in range(20):
                    await history.send(producer, "t", b"key")
                await broker.records_arrived("t", history.sent)
            leaves_at = trio.current_time()
        tell(history, broker, 0, trio.current_time() - leaves_at)
        stamps = [record.timestamp_ms / 1000 for record in broker.records("t")]
    for jump, stamp in zip((jump for jump in jumps for _ in range(20)), stamps, strict=True):
        assert abs(stamp - seconds() - jump) < PATIENCE
    assert [record.message for record in caplog.records if record.levelno > logging.INFO] == []


# ---------------------------------------------------------------------------------------------------------
# Descriptors, threads, memory


@in_both
def test_no_descriptor_is_left_for_a_connection(place: str) -> None:
    """The log, instruments and errors name it, attempts keep their pace, and in the end all is delivered."""
    with open_broker() as broker, running("few_descriptors", broker.bootstrap_servers, place) as program:
        assert program.says() == "full\n"
        broker.disconnect_all()
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
def test_many_producers_in_one_process(place: str) -> None:
    """All deliver, all close, and nothing is left of them."""
    with open_broker() as broker, running("many", broker.bootstrap_servers, str(COUNT), place) as program:
        printed = program.end()
    assert f"sent {2 * COUNT}, in log {2 * COUNT}" in printed
