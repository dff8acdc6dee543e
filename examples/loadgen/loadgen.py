"""Send at a steady rate, and show how long messages take until Kafka has acknowledged them.

    python examples/loadgen/loadgen.py --rate 5000 --duration 10

The latency of a message counts from the moment at which it was *due*, not from when it was sent: if this
program or the producer falls behind, that is latency, too. (Otherwise a pause of a second would be one slow
message, and not the five thousand that had to wait.) Where there is no room, a message is left out, and
counted.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import trio
from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table

import trio_kprod
from trio_kprod.testing import open_broker

#: Latencies are counted in buckets that grow by a tenth, from a tenth of a millisecond.
_FIRST, _GROWTH = 0.0001, 1.1

#: Seconds between two looks at what is due.
_TICK = 0.002


class Histogram:
    """Counts of latencies."""

    def __init__(self) -> None:
        self.count = 0
        self.longest = 0.0
        self._buckets: dict[int, int] = {}

    def add(self, seconds: float) -> None:
        bucket = max(0, math.ceil(math.log(max(seconds, _FIRST) / _FIRST, _GROWTH)))
        self._buckets[bucket] = self._buckets.get(bucket, 0) + 1
        self.count += 1
        self.longest = max(self.longest, seconds)

    def quantile(self, share: float) -> float:
        """The latency that this share of the messages did not exceed; at most a tenth too long."""
        left = share * self.count
        for bucket in sorted(self._buckets):
            left -= self._buckets[bucket]
            if left <= 0:
                return min(_FIRST * _GROWTH**bucket, self.longest)
        return self.longest

    def rows(self) -> list[tuple[float, int]]:
        """Upper bounds and counts, in steps of a factor of two."""
        rows: dict[int, int] = {}
        for bucket, count in self._buckets.items():
            step = math.ceil(bucket * math.log(_GROWTH, 2))
            rows[step] = rows.get(step, 0) + count
        return [(_FIRST * 2.0**step, rows[step]) for step in sorted(rows)]


class Latencies(trio_kprod.Instrument):
    """Measures each message from when it was due to its outcome.

    Attributes:
        due: when the message is due that is being sent.
    """

    def __init__(self) -> None:
        self.due = 0.0
        self.delivered = Histogram()
        self.lost = 0
        self._due: dict[int, float] = {}

    def accepted(self, *, number: int, **_: object) -> None:
        self._due[number] = self.due

    def settled(self, *, number: int, undelivered: trio_kprod.Undelivered | None, **_: object) -> None:
        due = self._due.pop(number)
        if undelivered is None:
            self.delivered.add(trio.current_time() - due)
        else:
            self.lost += 1


class Load:
    """A steady rate of messages."""

    def __init__(self, rate: float, duration: float, size: int) -> None:
        self.latencies = Latencies()
        self.left_out = 0
        self.sent = 0
        self._rate = rate
        self._total = round(rate * duration)
        self._value = bytes(size)

    async def run(self, producer: trio_kprod.Producer[bytes, bytes], topic: str) -> None:
        started = trio.current_time()
        due = 0
        while due < self._total:
            await trio.sleep(_TICK)
            until = min(self._total, int((trio.current_time() - started) * self._rate))
            for number in range(due, until):
                self._send(producer, topic, started + number / self._rate)
            due = until

    def _send(self, producer: trio_kprod.Producer[bytes, bytes], topic: str, due: float) -> None:
        self.latencies.due = due
        try:
            producer.send_nowait(topic, self._value)
        except trio_kprod.BufferOverflow:
            self.left_out += 1
        else:
            self.sent += 1

    def picture(self) -> RenderableType:
        delivered = self.latencies.delivered
        counts = Table.grid(padding=(0, 3))
        counts.add_row("sent", "acknowledged", "not delivered", "left out: no room")
        figures = (self.sent, delivered.count, self.latencies.lost, self.left_out)
        counts.add_row(*(f"[bold]{figure:,}" for figure in figures))
        bars = Table(box=None, padding=(0, 1))
        bars.add_column("up to", justify="right")
        bars.add_column("messages", justify="right")
        bars.add_column("")
        rows = delivered.rows()
        most = max((count for _, count in rows), default=1)
        for bound, count in rows:
            bars.add_row(_ms(bound), f"{count:,}", "[green]" + "\N{FULL BLOCK}" * max(1, 40 * count // most))
        return Group(counts, "", bars)

    def summary(self) -> Table:
        table = Table("p50", "p90", "p99", "p99.9", "longest", title="from due to acknowledged")
        delivered = self.latencies.delivered
        quantiles = [_ms(delivered.quantile(share)) for share in (0.5, 0.9, 0.99, 0.999)]
        table.add_row(*quantiles, _ms(delivered.longest))
        return table


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:,.1f} ms"


async def show(load: Load, live: Live) -> None:
    while True:
        live.update(load.picture())
        await trio.sleep(0.25)


@asynccontextmanager
async def some_kafka(bootstrap_servers: str | None) -> AsyncIterator[str]:
    if bootstrap_servers is not None:
        yield bootstrap_servers
    else:
        async with open_broker() as broker:
            yield broker.bootstrap_servers


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT[,...]", help="default: an embedded broker")
    parser.add_argument("--topic", default="loadgen")
    parser.add_argument("--rate", type=float, default=1000, help="messages a second")
    parser.add_argument("--duration", type=float, default=5, help="seconds")
    parser.add_argument("--size", type=int, default=100, help="bytes of a message")
    options = parser.parse_args()
    load = Load(options.rate, options.duration, options.size)
    console = Console()
    async with some_kafka(options.bootstrap_servers) as servers:
        with Live(load.picture(), console=console, auto_refresh=True) as live:
            async with (
                trio_kprod.open_producer(
                    servers, delivery_interval=0.005, delivery_threshold=500, instruments=(load.latencies,)
                ) as producer,
                trio.open_nursery() as nursery,
            ):
                nursery.start_soon(show, load, live)
                await load.run(producer, options.topic)
                await producer.flush()
                nursery.cancel_scope.cancel()
            live.update(load.picture())
    console.print(load.summary())


if __name__ == "__main__":
    trio.run(main)
