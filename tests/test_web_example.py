"""The web service of the examples: its answers, its page in a browser, and SIGTERM under load."""

from __future__ import annotations

import importlib.util
import itertools
import os
import shutil
import signal
import subprocess
import sys
import threading
import urllib.parse
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import httpx
import pytest
import trio
from prometheus_client import CollectorRegistry
from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.support.wait import WebDriverWait
from trio.testing import MockClock

import trio_kprod
from trio_kprod.instruments.prometheus import PrometheusInstrument
from trio_kprod.testing import Broker, MemoryBroker, open_broker, open_memory_producer

WEB = Path(__file__).parent.parent / "examples" / "web"
FRAMEWORKS = ("with_quart.py", "with_starlette.py")

#: Seconds until what has not happened is an error. The service itself ends in less than 30.
PATIENCE = 60.0

stops_by_signal = pytest.mark.skipif(sys.platform == "win32", reason="a process cannot be sent SIGTERM there")


def load_orders() -> Any:
    """The module, which stands in no package."""
    spec = importlib.util.spec_from_file_location("orders", WEB / "orders.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["orders"] = module
    spec.loader.exec_module(module)
    return module


ORDERS = load_orders()


# ---------------------------------------------------------------------------------------------------------
# What it answers, in virtual time


def orders_of(producer: trio_kprod.Producer) -> Any:
    return ORDERS.Orders(producer, CollectorRegistry())


async def test_strictly_means_that_it_is_in_the_log(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    async with open_memory_producer(broker) as producer:
        reply = await orders_of(producer).take_strictly(b"tea")
        assert (reply.status, reply.body) == (201, '{"partition": 0, "offset": 0}')
        assert [record.value for record in broker.records("orders")] == [b"tea"]


async def test_strictly_when_kafka_is_silent(autojump_clock: MockClock) -> None:
    """After a while nobody knows; the order stays accepted, and arrives when Kafka is back."""
    broker = MemoryBroker()
    async with open_memory_producer(broker) as producer:
        broker.silence("Produce")
        began = trio.current_time()
        reply = await orders_of(producer).take_strictly(b"tea")
        assert reply.status == 504
        assert trio.current_time() - began == pytest.approx(ORDERS.PATIENCE)
        broker.resume()
    assert [record.value for record in broker.records("orders")] == [b"tea"]


@pytest.mark.parametrize(("written", "status"), [(False, 503), (True, 504)])
async def test_strictly_tells_apart_what_may_be_written(
    autojump_clock: MockClock, written: bool, status: int
) -> None:
    """Only what is not in the log may be sent again without a doubt."""
    broker = MemoryBroker()
    async with open_memory_producer(broker, delivery_timeout=1.0) as producer:
        if written:
            broker.silence("Produce", after_append=True)
        else:
            broker.answer("Produce", error="INVALID_RECORD")
        reply = await orders_of(producer).take_strictly(b"tea")
        assert reply.status == status
        assert ("Retry-After" in reply.headers) == (not written)
        broker.resume()


async def test_too_large_is_the_clients_fault(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    async with open_memory_producer(broker) as producer:
        orders = orders_of(producer)
        assert orders.take(bytes(2_000_000)).status == 413
        assert (await orders.take_strictly(bytes(2_000_000))).status == 413


async def test_once_the_producer_takes_no_more(autojump_clock: MockClock) -> None:
    broker = MemoryBroker()
    async with open_memory_producer(broker) as producer:
        orders = orders_of(producer)
        producer.abort()
        assert orders.take(b"tea").status == 503
        assert (await orders.take_strictly(b"tea")).status == 503


async def test_ready_says_why_not(autojump_clock: MockClock) -> None:
    """An order that waits too long, refusals of late, a long queue, and the end that has been asked for."""
    broker = MemoryBroker()
    async with open_memory_producer(broker, max_buffer_size=10, max_queue_size=1000) as producer:
        orders = orders_of(producer)
        assert (await orders.take_strictly(b"the first")).status == 201
        assert orders.ready().status == 200
        broker.silence("Produce")
        while orders.take(b"tea").status == 202:
            pass
        assert "orders were refused lately" in orders.ready().body
        assert "more than 500 orders are queued" in orders.ready().body
        await trio.sleep(ORDERS.MAX_AGE + 1)
        assert "refused lately" not in orders.ready().body
        assert "waited for Kafka for more than 10 s" in orders.ready().body
        broker.resume()
        await producer.flush()
        assert orders.ready().status == 200
        orders.closing = True
        assert orders.ready().status == 503
        assert "told to end" in orders.ready().body


async def test_metrics_are_the_producers(autojump_clock: MockClock) -> None:
    registry = CollectorRegistry()
    instrument = PrometheusInstrument(registry=registry)
    broker = MemoryBroker()
    async with open_memory_producer(broker, instruments=(instrument,)) as producer:
        orders = ORDERS.Orders(producer, registry)
        await orders.take_strictly(b"tea")
        assert 'trio_kprod_delivered_messages_total{client_id="trio_kprod"} 1.0' in orders.metrics().body


# ---------------------------------------------------------------------------------------------------------
# The real process


@dataclass
class Service:
    process: subprocess.Popen[str]
    url: str

    def stop(self) -> tuple[int, str, str]:
        """Send SIGTERM; returns the exit code and all that was printed since."""
        self.process.send_signal(signal.SIGTERM)
        printed, errors = self.process.communicate(timeout=PATIENCE)
        return self.process.returncode, printed, errors


@contextmanager
def service(program: str, broker: Broker) -> Iterator[Service]:
    """The service, after it has begun to listen."""
    command = [sys.executable, str(WEB / program), "--port", "0"]
    process = subprocess.Popen(
        [*command, "--bootstrap-servers", broker.bootstrap_servers],
        env={**os.environ, "PYTHONPATH": str(Path(trio_kprod.__file__).parent.parent)},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    with process:
        try:
            assert process.stdout is not None
            said = process.stdout.readline()
            assert said.startswith("serving on http://"), process.communicate(timeout=PATIENCE)
            yield Service(process, said.split()[-1])
        finally:
            process.kill()


@stops_by_signal
@pytest.mark.parametrize("program", FRAMEWORKS)
def test_every_path_is_served(program: str) -> None:
    with open_broker() as broker, service(program, broker) as running:
        with httpx.Client(base_url=running.url) as client:
            assert client.post("/orders/strict", content=b"tea").json() == {"partition": 0, "offset": 0}
            assert client.post("/orders", content=b"milk").status_code == 202
            assert client.get("/health").json() == {"healthy": True}
            assert client.get("/ready").json() == {"ready": True, "why_not": []}
            assert client.get("/figures").json()["accepted"] == 2
            metrics = client.get("/metrics")
            assert metrics.headers["content-type"].startswith("text/plain; version=")
            assert "trio_kprod_accepted_messages_total" in metrics.text
            page = client.get("/")
            assert page.headers["content-type"].startswith("text/html")
        code, printed, errors = running.stop()
        assert [record.value for record in broker.records("orders")] == [b"tea", b"milk"]
    assert (code, printed) == (0, "ended: 2 orders accepted, 2 delivered\n")
    assert "Traceback" not in errors


@stops_by_signal
@pytest.mark.parametrize("program", FRAMEWORKS)
def test_overflow_is_a_503_that_says_when_to_try_again(program: str) -> None:
    """What was refused is not in the log; what was accepted is, once Kafka answers again."""
    with open_broker() as broker, service(program, broker) as running:
        broker.silence("Produce")
        accepted: list[bytes] = []
        with httpx.Client(base_url=running.url) as client:
            for number in range(1000):
                order = b"%d" % number + bytes(900_000)
                reply = client.post("/orders", content=order)
                if reply.status_code != 202:
                    break
                accepted.append(order)
            assert (reply.status_code, reply.headers["Retry-After"]) == (503, "1")
            assert client.get("/ready").status_code == 503
            assert client.get("/health").status_code == 200
        broker.resume()
        code, _, _ = running.stop()
        assert [record.value for record in broker.records("orders")] == accepted
    assert code == 0


@stops_by_signal
@pytest.mark.parametrize("program", FRAMEWORKS)
def test_what_was_accepted_and_is_refused_by_kafka_is_told_at_the_end(program: str) -> None:
    """By the log and by the exit code."""
    with open_broker() as broker, service(program, broker) as running:
        broker.answer("Produce", error="INVALID_RECORD", times=None)
        assert httpx.post(running.url + "/orders", content=b"tea").status_code == 202
        code, _, errors = running.stop()
    assert code == 1
    assert "the block has ended: 1 message not delivered" in errors
    assert "INVALID_RECORD (87)" in errors


# ---------------------------------------------------------------------------------------------------------
# SIGTERM under load


@dataclass
class Load:
    """What clients were told, by the order's text."""

    url: str
    told: dict[bytes, int] = field(default_factory=dict)
    unanswered: list[bytes] = field(default_factory=list)
    enough: threading.Event = field(default_factory=threading.Event)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def client(self) -> None:
        """Order, now in this way and now in that, until the server takes no more connections."""
        with httpx.Client(base_url=self.url, timeout=PATIENCE) as http:
            while True:
                number = next(self.numbers)
                order = b"order %d" % number
                path = "/orders/strict" if number % 3 == 0 else "/orders"
                try:
                    reply = http.post(path, content=order)
                except httpx.ConnectError:
                    self.unanswered.append(order)
                    return
                except httpx.TransportError:  # the connection was closed, and no byte of an answer came
                    self.unanswered.append(order)
                else:
                    self.told[order] = reply.status_code
                    if len(self.told) >= 300:
                        self.enough.set()


@stops_by_signal
@pytest.mark.parametrize("program", FRAMEWORKS)
@pytest.mark.parametrize("slowness", [0.0, 0.2])
def test_sigterm_under_load_loses_nothing(program: str, slowness: float) -> None:
    """Each 202 and each 201 is in the log, once; nothing else is: every other client may try again."""
    with open_broker(topics={"orders": 3}) as broker, service(program, broker) as running:
        if slowness:
            broker.delay("Produce", slowness, times=None)
        load = Load(running.url)
        with ThreadPoolExecutor(30) as pool:
            clients = [pool.submit(load.client) for _ in range(30)]
            assert load.enough.wait(PATIENCE)
            code, printed, errors = running.stop()
            for client in clients:
                client.result(PATIENCE)
        log = Counter(record.value for record in broker.records("orders"))
    assert code == 0, errors
    taken = [order for order, status in load.told.items() if status in (201, 202)]
    assert set(load.told.values()) <= {201, 202, 503}
    assert log == Counter(taken)  # so that none of the refused and unanswered is in it
    assert len(load.unanswered) >= 30
    assert printed == f"ended: {len(taken)} orders accepted, {len(taken)} delivered\n"


@stops_by_signal
@pytest.mark.parametrize("program", FRAMEWORKS)
def test_at_sigterm_what_has_begun_is_answered_and_what_begins_then_is_refused(program: str) -> None:
    with open_broker() as broker, service(program, broker) as running, ThreadPoolExecutor(1) as pool:
        broker.silence("Produce")
        begun = pool.submit(httpx.post, running.url + "/orders/strict", content=b"tea", timeout=PATIENCE)
        broker.wait_requests("Produce")
        with httpx.Client(base_url=running.url) as client:
            running.process.send_signal(signal.SIGTERM)
            while client.get("/ready").status_code == 200:
                pass
            for path in ("/orders", "/orders/strict"):
                refused = client.post(path, content=b"too late")
                assert (refused.status_code, refused.headers["Retry-After"]) == (503, "1")
        running.process.send_signal(signal.SIGTERM)  # a second one changes nothing
        broker.resume()
        assert begun.result(PATIENCE).status_code == 201
        printed, errors = running.process.communicate(timeout=PATIENCE)
        assert [record.value for record in broker.records("orders")] == [b"tea"]
    assert (running.process.returncode, printed) == (0, "ended: 1 orders accepted, 1 delivered\n"), errors


@stops_by_signal
@pytest.mark.parametrize("program", FRAMEWORKS)
def test_an_idle_connection_is_closed_after_a_while(program: str) -> None:
    """By Hypercorn, after its five seconds; Quart-Trio alone would keep it for ever."""
    with open_broker() as broker, service(program, broker) as running:
        address = urllib.parse.urlsplit(running.url)
        idle = HTTPConnection(str(address.hostname), address.port, timeout=PATIENCE)
        idle.request("GET", "/health")
        assert idle.getresponse().read() == b'{"healthy": true}'
        assert idle.sock.recv(1) == b""
        idle.close()


# ---------------------------------------------------------------------------------------------------------
# Where the producer had better not be


@pytest.mark.parametrize("where", ["while_serving", "after_serving", "starlette"])
def test_in_a_lifespan_only_the_log_says_what_was_lost(where: str) -> None:
    """Hypercorn swallows what a lifespan raises at its end, so the program ends as if all was well."""
    ended = subprocess.run(
        [sys.executable, "-m", "tests.programs.lifespan", where],
        cwd=WEB.parent.parent, capture_output=True, text=True, timeout=PATIENCE, check=False,
    )  # fmt: skip
    assert (ended.returncode, ended.stdout) == (0, "ended as if nothing had happened\n"), ended.stderr
    assert "ERROR:trio_kprod:the block has ended: 1 message not delivered" in ended.stderr


# ---------------------------------------------------------------------------------------------------------
# The page


@pytest.fixture
def browser(tmp_path: Path) -> Iterator[webdriver.Chrome]:
    """A headless Chromium, which looks for nothing but the page."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    driver = shutil.which("chromedriver")
    if chromium is None or driver is None:
        pytest.skip("no Chromium with its driver (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = chromium
    for flag in (
        "headless", "no-sandbox", "disable-gpu", "disable-quic", "no-first-run", "disable-sync",
        "disable-background-networking", "disable-component-update", "window-size=900,700",
        f"user-data-dir={tmp_path / 'profile'}",
    ):  # fmt: skip
        options.add_argument(f"--{flag}")
    chrome = webdriver.Chrome(options, webdriver.ChromeService(driver))
    try:
        yield chrome
    finally:
        chrome.quit()


def shows(browser: webdriver.Chrome, **texts: str) -> None:
    """Wait until the page does."""

    def as_told(_: object) -> bool:
        return all(browser.find_element(By.ID, name).text == text for name, text in texts.items())

    WebDriverWait(browser, PATIENCE, poll_frequency=0.05).until(as_told, f"not {texts}")


@stops_by_signal
@pytest.mark.parametrize("program", FRAMEWORKS)
def test_the_page_shows_live_figures(program: str, browser: webdriver.Chrome, tmp_path: Path) -> None:
    """Of what others send and of what its button sends; and that the service has gone."""
    with open_broker() as broker, service(program, broker) as running:
        browser.get(running.url)
        shows(browser, state="ready", accepted="0", delivered="0")
        with httpx.Client(base_url=running.url) as client:
            for _ in range(1234):
                assert client.post("/orders", content=b"tea").status_code == 202
        shows(browser, delivered="1,234", waiting="0", in_flight="0", undelivered="0")
        browser.find_element(By.ID, "order").click()
        shows(browser, accepted="1,235", delivered="1,235")
        picture = Path(os.environ.get("SCREENSHOTS", tmp_path)) / f"{program}.png"
        assert browser.save_screenshot(str(picture))
        assert broker.records("orders")[-1].value == b"from the page"
        running.stop()
        shows(browser, state="the server does not answer")
