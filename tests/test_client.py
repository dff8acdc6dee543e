"""The client, in its worker thread or in the loop: opening, stopping, being stuck, being abandoned."""

from __future__ import annotations

import logging
import math
import socket
import ssl
import threading
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import pytest
import trio
import trustme

import trio_kprod
from tests import cycles
from tests.modes import OpenProducer
from tests.scripted_peer import make_endpoints
from trio_kprod._client import Client, LoopHost, ThreadHost, _steps
from trio_kprod._client._produce_codec import ProduceExchange
from trio_kprod._client._steps import Life, Steps
from trio_kprod._core import Abandoned
from trio_kprod._core._core import ProduceCore
from trio_kprod._settings import make_settings
from trio_kprod.testing import Broker, MemoryBroker, open_broker, open_memory_producer


@pytest.fixture
def broker() -> Iterator[Broker]:
    with open_broker(partitions=4) as broker:
        yield broker


@pytest.fixture
def closed_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
    return port


async def test_messages_arrive_through_sockets(broker: Broker, open_producer: OpenProducer) -> None:
    async with open_producer(broker.bootstrap_servers) as producer:
        assert await producer.send_many("t", (b"%d" % number for number in range(5000))) == 5000

    assert sorted(int(record.value or b"") for record in broker.records("t")) == list(range(5000))
    assert broker.connections == 0


async def test_the_scope_leaves_no_thread(broker: Broker, open_producer: OpenProducer) -> None:
    async with open_producer(broker.bootstrap_servers) as producer:
        await producer.send_and_wait("t", b"x")

    assert trio.to_thread.current_default_thread_limiter().borrowed_tokens == 0
    assert trio.testing.active_thread_count() == 0


async def test_one_dead_bootstrap_server_of_two_does_no_harm(
    broker: Broker, closed_port: int, open_producer: OpenProducer
) -> None:
    servers = [f"127.0.0.1:{closed_port}", broker.bootstrap_servers]

    async with open_producer(servers) as producer:
        await producer.send_and_wait("t", b"x")

    assert [record.value for record in broker.records("t")] == [b"x"]


async def test_nobody_at_any_address(closed_port: int, open_producer: OpenProducer) -> None:
    servers = f"127.0.0.1:{closed_port},does-not-exist.invalid:9092"

    with pytest.raises(trio_kprod.ConnectFailed) as caught:
        async with open_producer(servers, connect_timeout=0.5):
            pytest.fail("must not be entered")

    text = str(caught.value)
    assert "\n" not in text
    assert f"127.0.0.1:{closed_port}: connecting: [Errno 111]" in text
    assert "Connection refused" in text
    assert "does-not-exist.invalid:9092: connecting: [Errno -" in text
    assert set(caught.value.causes) == {f"127.0.0.1:{closed_port}", "does-not-exist.invalid:9092"}


async def test_a_broker_that_comes_up_while_opening(broker: Broker, open_producer: OpenProducer) -> None:
    broker.stop_listening()
    async with trio.open_nursery() as nursery:

        @nursery.start_soon
        async def come_up() -> None:
            await trio.testing.wait_all_tasks_blocked(0.05)
            broker.start_listening()

        async with open_producer(broker.bootstrap_servers) as producer:
            await producer.send_and_wait("t", b"x")


async def test_a_wrong_password_ends_the_opening_at_once(open_producer: OpenProducer) -> None:
    with open_broker(sasl_users={"ada": "right"}) as broker:
        config: trio_kprod.ClientConfig = {
            "security_protocol": "SASL_PLAINTEXT",
            "sasl_mechanism": "PLAIN",
            "sasl_plain_username": "ada",
            "sasl_plain_password": "wrong",
        }
        with pytest.raises(trio_kprod.ConnectFailed, match="SASL PLAIN authentication"):
            async with open_producer(
                broker.bootstrap_servers,
                connect_timeout=600,
                **config,
            ):
                pytest.fail("must not be entered")


async def test_a_broker_that_is_too_old_ends_the_opening_at_once(open_producer: OpenProducer) -> None:
    """Here one that tells the versions of Kafka 0.10: opening fails, and not each message later."""
    with (
        open_broker(max_versions={"Produce": 2, "Metadata": 2, "ApiVersions": 0}) as broker,
        pytest.raises(trio_kprod.ConnectFailed, match=r"older than Kafka 0\.11, .*; upgrade it"),
    ):
        async with open_producer(broker.bootstrap_servers, connect_timeout=600):
            pytest.fail("must not be entered")


async def test_a_broker_that_is_too_old_for_zstd(open_producer: OpenProducer) -> None:
    """It takes other codecs; of zstd it would say UNKNOWN_SERVER_ERROR."""
    pytest.importorskip("zstandard")
    with open_broker(max_versions={"Produce": 6}) as broker:
        async with open_producer(broker.bootstrap_servers, compression_type="gzip") as producer:
            await producer.send_and_wait("t", b"x")
        with pytest.raises(
            trio_kprod.ConnectFailed,
            match=r"older than Kafka 2\.1, .* zstd: .* choose another compression_type",
        ):
            async with open_producer(broker.bootstrap_servers, compression_type="zstd", connect_timeout=600):
                pytest.fail("must not be entered")


@pytest.mark.parametrize("mechanism", ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"])
async def test_tls_and_sasl(
    mechanism: str, tmp_path_factory: pytest.TempPathFactory, open_producer: OpenProducer
) -> None:
    authority = trustme.CA()
    context = _server_context(authority)
    cafile = tmp_path_factory.mktemp("tls") / "ca.pem"
    authority.cert_pem.write_to_path(str(cafile))
    with open_broker(ssl_context=context, sasl_users={"ada": "secret"}) as broker:
        async with open_producer(
            broker.bootstrap_servers.replace("127.0.0.1", "localhost"),
            security_protocol="SASL_SSL",
            ssl_cafile=str(cafile),
            ssl_check_hostname=False,
            sasl_mechanism=mechanism,
            sasl_plain_username="ada",
            sasl_plain_password="secret",
        ) as producer:
            await producer.send_and_wait("t", b"x")


def _server_context(authority: trustme.CA) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    return context


class Stuck:
    """A partitioner that does not return until it is released."""

    def __init__(self) -> None:
        self.entered = threading.Event()
        self.release = threading.Event()
        self.left = threading.Event()

    def __call__(self, key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
        self.entered.set()
        self.release.wait()
        self.left.set()
        return 0


async def test_a_stuck_partitioner_does_not_hold_up_the_end(broker: Broker) -> None:
    """It is abandoned, its messages are told as not written, and it writes nothing when it comes back."""
    stuck = Stuck()
    try:
        with pytest.raises(trio_kprod.DeliveryFailed) as caught:
            async with trio_kprod.open_producer(
                broker.bootstrap_servers, shutdown_timeout=0.1, partitioner=stuck
            ) as producer:
                for number in range(3):
                    producer.send_nowait("t", b"%d" % number)
                producer.deliver_nowait()
                await trio.to_thread.run_sync(stuck.entered.wait)
        failed = caught.value.undelivered
        assert [one.message.value for one in failed] == [b"0", b"1", b"2"]
        assert not any(one.maybe_written for one in failed)
    finally:
        stuck.release.set()
    await trio.to_thread.run_sync(stuck.left.wait)
    while trio.testing.active_thread_count():
        await trio.lowlevel.checkpoint()
    assert broker.records("t") == []


@pytest.mark.parametrize("event", ["submit", "responded", "advance", "metadata"])
async def test_a_bug_in_the_core_crashes_the_producer(
    broker: Broker, event: str, monkeypatch: pytest.MonkeyPatch, open_producer: OpenProducer
) -> None:
    """Wherever the core was told of something: by us, by an answer, by time, by another connection."""

    def broken(*_: object) -> None:
        raise ZeroDivisionError(f"a bug in {event}")

    with trio.fail_after(30), pytest.raises(trio_kprod.ProducerCrashed) as caught:
        async with open_producer(broker.bootstrap_servers) as producer:
            await producer.send_and_wait("t", b"good")
            monkeypatch.setattr(ProduceCore, event, broken)
            producer.send_nowait("t", b"to a topic that is known")
            producer.send_nowait("another", b"to one that is not")
            producer.deliver_nowait()
            await trio.sleep_forever()
    assert f"a bug in {event}" in repr(caught.value.__cause__)
    assert cycles.running_clients() == 0


async def test_a_partitioner_that_raises_fails_its_message_only(
    broker: Broker, open_producer: OpenProducer
) -> None:
    def partitioner(key: bytes | None, partitions: Sequence[int], available: Sequence[int]) -> int:
        if key == b"bad":
            raise ZeroDivisionError("no")
        return 2

    with pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_producer(broker.bootstrap_servers, partitioner=partitioner) as producer:
            for key in (b"good", b"bad", b"fine"):
                producer.send_nowait("t", b"x", key=key)

    (failed,) = caught.value.undelivered
    assert failed.message.key == b"bad"
    assert isinstance(failed.cause.__cause__, ZeroDivisionError)
    assert [(record.partition, record.key) for record in broker.records("t")] == [(2, b"good"), (2, b"fine")]


async def test_what_is_given_up_says_what_is_wrong_with_the_broker(
    broker: Broker, open_producer: OpenProducer
) -> None:
    """An address that only other machines can use is a common mistake in `advertised.listeners`."""
    servers = broker.bootstrap_servers
    broker.advertise("nowhere.invalid", 1234)

    with pytest.raises(trio_kprod.DeliveryFailed, match=r"nowhere\.invalid:1234: connecting"):
        async with open_producer(servers, shutdown_timeout=0.5) as producer:
            producer.send_nowait("t", b"x")


async def test_an_outage_is_logged_once_not_at_each_attempt(
    broker: Broker, caplog: pytest.LogCaptureFixture, open_producer: OpenProducer
) -> None:
    caplog.set_level(logging.WARNING, "trio_kprod")
    servers = broker.bootstrap_servers
    broker.advertise("nowhere.invalid", 1234)

    with pytest.raises(trio_kprod.DeliveryFailed):
        async with open_producer(servers, shutdown_timeout=1) as producer:
            producer.send_nowait("t", b"x")

    told = [record.levelname for record in caplog.records if "nowhere" in record.getMessage()]
    assert told == ["WARNING", "ERROR"]  # the outage, and what became of the message


async def test_a_clean_run_logs_no_warning(
    broker: Broker, caplog: pytest.LogCaptureFixture, open_producer: OpenProducer
) -> None:
    caplog.set_level(logging.WARNING)

    async with open_producer(broker.bootstrap_servers) as producer:
        await producer.send_and_wait("t", b"x")

    assert caplog.records == []


async def test_instruments_hear_of_connections_and_requests(
    broker: Broker, open_producer: OpenProducer
) -> None:
    heard: list[str] = []

    class Listener(trio_kprod.Instrument):
        def connected(self, *, broker: str) -> None:
            heard.append(f"connected {broker}")

        def request(
            self,
            *,
            broker: str,
            api: str,
            request_bytes: int,
            response_bytes: int,
            duration: float,
            error: BaseException | None,
        ) -> None:
            heard.append(f"{api} {broker} {error}")

        def compress(self, *, message_count: int, uncompressed_bytes: int, compressed_bytes: int) -> None:
            heard.append(f"compressed {message_count}: {compressed_bytes < uncompressed_bytes}")

    async with open_producer(
        broker.bootstrap_servers, instruments=[Listener()], compression_type="gzip"
    ) as producer:
        await producer.send_and_wait("t", b"x" * 1000)

    name = broker.bootstrap_servers
    assert heard == [f"connected {name}", "compressed 1: True", f"connected {name}", f"Produce {name} None"]


# ---------------------------------------------------------------------------------------------------------
# Steps


def test_what_may_take_long_runs_without_the_lock() -> None:
    """And what comes back after the client was abandoned goes no further."""
    steps = Steps(lambda: None, lambda _: math.inf, trio.current_time)

    def work(number: int) -> int:
        assert not steps.lock.locked()
        if number < 0:
            with steps.abandoned():
                pass
        return number + 1

    with steps.lock:
        assert steps.unlocked(work, 1) == 2
        assert steps.lock.locked()
        with pytest.raises(Abandoned):
            steps.unlocked(work, -1)
        assert steps.lock.locked()
    assert steps.life is Life.ABANDONED


def test_a_step_that_does_not_end_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_steps, "_STEP_PATIENCE", 0.01)
    steps = Steps(lambda: None, lambda _: math.inf, trio.current_time)
    with steps.lock, pytest.raises(RuntimeError, match="does not end its step"), steps.abandoned():
        pytest.fail("must not be entered")


async def test_requests_are_written_without_the_lock(
    autojump_clock: object, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To write to many brokers takes its time, and whoever abandons the client must not wait for it."""
    locked = []

    def encode(self: ProduceExchange, client_id: str) -> bytes:
        locked.append(producer._delivery._client._steps.lock.locked())
        return original(self, client_id)

    original = ProduceExchange.encode
    monkeypatch.setattr(ProduceExchange, "encode", encode)
    async with open_memory_producer() as producer:
        await producer.send_and_wait("t", b"0")
        await producer.send_and_wait("t", b"1")
    assert locked == [False, False]


async def test_between_two_steps_the_loop_gets_a_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also if the core always has more to do: sockets, timers and `stop` must not wait."""
    steps = 0

    def decide() -> Any:
        nonlocal steps
        steps += 1
        return original()

    with trio.fail_after(20):
        async with open_memory_producer() as producer:
            await producer.send_and_wait("t", b"x")
            client = producer._delivery._client
            original = client._steps._decide
            client._steps._decide = decide
            monkeypatch.setattr(ProduceCore, "deadline", property(lambda core: core.now - 1))
            client._wake()
            for _ in range(100):
                await trio.lowlevel.checkpoint()
            assert 10 <= steps <= 110
            await producer.send_and_wait("t", b"y")


async def test_whoever_stops_it_before_it_runs_is_heard() -> None:
    client = Client(make_settings(["nowhere.invalid:9092"], client_config={}), LoopHost())
    client.stop("it was not needed")
    with trio.fail_after(20):
        await client.main()
    assert client._steps.life is Life.STOPPED


class Nowhere:
    """A network in which no connection is ever made."""

    async def open_stream(self, host: str, port: int) -> NoReturn:
        await trio.sleep_forever()


async def test_a_cancellation_goes_on_although_the_client_was_abandoned() -> None:
    """In the loop of the user, both can happen to it."""
    settings = make_settings(["nowhere.invalid:9092"], client_config={})
    client = Client(settings, LoopHost(), Nowhere())

    async def abandon(scope: trio.CancelScope) -> None:
        await trio.testing.wait_all_tasks_blocked()
        client.abandon()
        scope.cancel()

    with trio.fail_after(20):
        async with trio.open_nursery() as nursery:
            with trio.CancelScope() as scope:
                nursery.start_soon(abandon, scope)
                await client.main()
                pytest.fail("it has swallowed the cancellation")
    assert scope.cancelled_caught


@pytest.fixture
def slow_name(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A host name that nobody can look up in the time a test has."""
    release = threading.Event()
    look_up = socket.getaddrinfo

    def slow(host: Any, port: Any, family: int, kind: int, proto: int, flags: int) -> Any:
        if host == b"slow.invalid" and not flags & socket.AI_NUMERICHOST:
            release.wait()
            raise socket.gaierror(socket.EAI_AGAIN, "too late")
        return look_up(host, port, family, kind, proto, flags)

    monkeypatch.setattr(socket, "getaddrinfo", slow)
    yield "slow.invalid"
    release.set()


async def test_a_slow_look_up_delays_no_other_broker(
    broker: Broker, slow_name: str, open_producer: OpenProducer
) -> None:
    with trio.fail_after(20):
        servers = [f"{slow_name}:9092", broker.bootstrap_servers]
        async with open_producer(servers) as producer:
            await producer.send_and_wait("t", b"x")


async def test_a_slow_look_up_does_not_delay_the_end(
    broker: Broker, slow_name: str, open_producer: OpenProducer
) -> None:
    servers = broker.bootstrap_servers
    broker.advertise(slow_name, 9092)
    with trio.fail_after(20), pytest.raises(trio_kprod.DeliveryFailed) as caught:
        async with open_producer(servers, shutdown_timeout=0.1) as producer:
            producer.send_nowait("t", b"x")
    assert [one.maybe_written for one in caught.value.undelivered] == [False]


async def test_a_slow_look_up_does_not_delay_the_error(slow_name: str, open_producer: OpenProducer) -> None:
    with trio.fail_after(20), pytest.raises(trio_kprod.ConnectFailed):
        async with open_producer(f"{slow_name}:9092", connect_timeout=0.1):
            pytest.fail("must not be entered")


async def test_waiting_longer_than_a_thread_can() -> None:
    with trio.move_on_after(0.3) as scope:
        await ThreadHost().sleep(1e300)
    assert scope.cancelled_caught


def test_what_is_wrong_is_told_to_another_thread_while_it_changes() -> None:
    """A worker is abandoned while it goes on."""
    endpoints = make_endpoints()

    class Trouble(OSError):
        def __str__(self) -> str:
            endpoints.pace((f"new{len(endpoints._paces)}", 1)).troubles[OSError] = OSError()
            endpoints.pace(("a", 1)).troubles[type(str(len(endpoints._paces)), (OSError,), {})] = OSError()
            return "down"

    for host in ("a", "b"):
        endpoints.pace((host, 1)).troubles[Trouble] = Trouble()
    assert "a:1: down; b:1: down" in str(endpoints.trouble())


def test_two_runs_one_after_the_other(broker: Broker, open_producer: OpenProducer) -> None:
    """Nothing is left behind that the next would trip over."""

    async def one() -> None:
        async with open_producer(broker.bootstrap_servers) as producer:
            await producer.send_and_wait("t", b"x")

    for _ in range(2):
        trio.run(one)
    assert len(broker.records("t")) == 2


async def test_what_was_held_back_is_handed_over_when_the_client_is_free(autojump_clock: object) -> None:
    """Without anything else that would wake the delivery task."""
    broker = MemoryBroker()
    async with open_memory_producer(broker, delivery_threshold=1) as producer:
        await producer.send_and_wait("t", b"0")
        broker.silence("Produce")
        client = producer._delivery._client
        client._inbox.append([])  # it has yet to take this
        producer.send_nowait("t", b"1")
        await trio.testing.wait_all_tasks_blocked()
        assert producer.statistics().in_flight == 0
        client._wake()
        await trio.testing.wait_all_tasks_blocked()
        assert producer.statistics().in_flight == 1
        broker.resume()
