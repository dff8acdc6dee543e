"""What each ready-made instrument costs a message, beside a producer without one.

    python -m benchmarks.instruments [--rounds N] [--messages N]

Needs the extras ``otel``, ``prometheus``, ``statsd`` and ``structlog``, and no Kafka: the embedded broker
runs in a process of its own. All cases take turns within one run, and only ratios between them count: no
figure of another machine or day. The processor time is that of the thread in which the user's loop runs,
where hooks are called.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import trio
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased
from prometheus_client import CollectorRegistry

import trio_kprod
from benchmarks.harness.tables import Table
from trio_kprod.instruments.logs import LoggingInstrument
from trio_kprod.instruments.opentelemetry import OpenTelemetryInstrument, OpenTelemetryMetrics
from trio_kprod.instruments.prometheus import PrometheusInstrument
from trio_kprod.instruments.statsd import StatsdInstrument

NONE = "none"
BURST = 1_000
VALUE = b"x" * 100

_BROKER = """
from trio_kprod.testing import open_broker
with open_broker(partitions=3) as broker:
    print(broker.bootstrap_servers, flush=True)
    input()
"""


class Exporter(SpanExporter):
    """Where spans go in the least time."""

    def export(self, _: Sequence[ReadableSpan]) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def meters(after: ExitStack) -> MeterProvider:
    """Metrics that are kept in memory."""
    provider = MeterProvider([InMemoryMetricReader()])
    after.callback(provider.shutdown)
    return provider


def traces(after: ExitStack, share: float) -> trio_kprod.Instrument:
    """With this share of the messages sampled, and exported in the SDK's own thread."""
    provider = TracerProvider(sampler=TraceIdRatioBased(share))
    provider.add_span_processor(BatchSpanProcessor(Exporter()))
    after.callback(provider.shutdown)
    return OpenTelemetryInstrument(tracer_provider=provider, meter_provider=meters(after))


#: What makes the instruments of each case; what is to be done afterwards goes onto the stack.
CASES: dict[str, Callable[[ExitStack], Iterable[trio_kprod.Instrument]]] = {
    NONE: lambda _: (),
    "LoggingInstrument": lambda _: [LoggingInstrument(logging.getLogger("benchmarks.quiet"))],
    "PrometheusInstrument": lambda _: [PrometheusInstrument(registry=CollectorRegistry())],
    "OpenTelemetryMetrics": lambda after: [OpenTelemetryMetrics(meter_provider=meters(after))],
    "StatsdInstrument": lambda _: [StatsdInstrument()],
    "OpenTelemetryInstrument, 1 in 100 sampled": lambda after: [traces(after, 0.01)],
    "OpenTelemetryInstrument, all sampled": lambda after: [traces(after, 1.0)],
}


class Round(NamedTuple):
    """Seconds for all messages: of the clock, and of the user's thread on a processor."""

    wall: float
    cpu: float


@contextmanager
def broker() -> Iterator[str]:
    """The embedded broker in another process; gives its address."""
    with subprocess.Popen(
        [sys.executable, "-c", _BROKER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        yield process.stdout.readline().strip()
        process.communicate("\n")


async def one_round(servers: str, instruments: Iterable[trio_kprod.Instrument], messages: int) -> Round:
    """Bursts of `send_nowait`, each flushed."""
    async with trio_kprod.open_producer(servers, instruments=instruments) as producer:
        await producer.send_and_wait("events", VALUE)
        wall, cpu = time.perf_counter(), time.thread_time()
        for _ in range(0, messages, BURST):
            for _ in range(BURST):
                producer.send_nowait("events", VALUE)
            await producer.flush()
        return Round(time.perf_counter() - wall, time.thread_time() - cpu)


def measure(servers: str, rounds: int, messages: int) -> dict[str, list[Round]]:
    """The cases in turn, so that what else the machine does hits all alike."""
    found: dict[str, list[Round]] = {name: [] for name in CASES}
    for _ in range(rounds):
        for name, make in CASES.items():
            with ExitStack() as after:
                found[name].append(trio.run(one_round, servers, make(after), messages))
    return found


def table(found: dict[str, list[Round]], messages: int) -> Table:
    """Each beside none, by the medians of its rounds."""
    cpu = {name: statistics.median(each.cpu for each in rounds) for name, rounds in found.items()}
    wall = {name: statistics.median(each.wall for each in rounds) for name, rounds in found.items()}
    rows = [
        [
            name,
            f"{1e6 * cpu[name] / messages:.2f}",
            f"{cpu[name] / cpu[NONE]:.2f}",
            f"{wall[NONE] / wall[name]:.2f}",
        ]
        for name in found
    ]
    head = ["instrument", "us of the user's thread a message", "times none", "rate, times none's"]
    return Table("Instruments", head, rows)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--messages", type=int, default=20_000)
    given = parser.parse_args()
    with broker() as servers:
        found = measure(servers, given.rounds, given.messages)
    print(table(found, given.messages).text())


if __name__ == "__main__":
    main()
