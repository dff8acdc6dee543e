"""Keep messages in SQLite until Kafka has acknowledged them: a kill -9 at any moment loses none.

A message is *kept* before it is sent: once `Outbox.keep` returns, it is on the disk. A relay sends what
is kept, in order, and removes what Kafka has acknowledged. What is left when the program dies is sent at
the next start again. So each message arrives at least once. It may arrive twice if the program died between
the acknowledgement and the removal; the outbox counts the messages for which that is possible.

    python examples/outbox/outbox.py < lines          # with an embedded broker
    python examples/outbox/outbox.py --bootstrap-servers localhost:9092 --database outbox.db < lines

Each line is a message; "key=value" has a key. "kept N" is printed when line N is on the disk.
"""

from __future__ import annotations

import argparse
import sqlite3
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, closing
from functools import cache
from typing import BinaryIO, NamedTuple, TypeVar

import trio

import trio_kprod
from trio_kprod.testing import open_broker

T = TypeVar("T")

#: Sent and removed together. More is quicker, and more may be sent twice after a crash.
_AT_ONCE = 500

_TABLES = """
PRAGMA journal_mode = WAL;
PRAGMA synchronous = FULL;
CREATE TABLE IF NOT EXISTS kept (
    id INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, key BLOB, value BLOB, sent INTEGER DEFAULT 0
);
CREATE TABLE IF NOT EXISTS refused (
    id INTEGER PRIMARY KEY, topic TEXT NOT NULL, key BLOB, value BLOB, reason TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS sent_again (id INTEGER);
"""


class Row(NamedTuple):
    id: int
    topic: str
    key: bytes | None
    value: bytes | None
    sent: int  # how often it was given to a producer before


class Outbox:
    """Messages on the disk. Made by `open_outbox`."""

    def __init__(self, database: sqlite3.Connection) -> None:
        self._database = database
        self._one_at_a_time = trio.CapacityLimiter(1)
        self._more = trio.Event()
        self._empty = trio.Event()

    async def keep(
        self,
        messages: Sequence[tuple[str, bytes | None, bytes | None]],
        also: Callable[[sqlite3.Connection], object] = lambda _: None,
    ) -> None:
        """Put (topic, key, value) on the disk, all or none. Once this has returned, nothing loses them.

        `also` is done in the same transaction: write what the messages tell of into tables of your own, and
        neither can be there without the other. It runs in a thread; if it raises, nothing is kept.
        """

        def work(database: sqlite3.Connection) -> None:
            also(database)
            database.executemany("INSERT INTO kept (topic, key, value) VALUES (?, ?, ?)", messages)

        await self._write(work)
        if self._empty.is_set():
            self._empty = trio.Event()
        self._more.set()

    async def relay(self, producer: trio_kprod.Producer) -> None:
        """Send what is kept, in order, for ever. Raises `DeliveryFailed` if the producer gives up."""
        while True:
            self._more = trio.Event()
            rows = await self._write(_take)
            if rows:
                await self._send(producer, rows)
            else:
                if not self._more.is_set():  # else something was kept after we looked
                    self._empty.set()
                await self._more.wait()

    async def empty(self) -> None:
        """Wait until Kafka has, or has refused, all that is kept."""
        await self._empty.wait()

    async def count(self, table: str) -> int:
        """The rows of a table, of this run and those before: `kept`; `refused`, with Kafka's reason; or
        `sent_again`, which may be in Kafka twice.
        """
        query = f"SELECT COUNT(*) FROM {table}"  # noqa: S608 (a name of ours)
        (count,) = await self._write(lambda database: database.execute(query).fetchone())
        return int(count)

    async def _send(self, producer: trio_kprod.Producer, rows: Sequence[Row]) -> None:
        receipts = [await producer.send_tracked(row.topic, row.value, key=row.key) for row in rows]
        refused: list[tuple[int, str]] = []
        for row, receipt in zip(rows, receipts, strict=True):
            try:
                await receipt
            except trio_kprod.DeliveryFailed as failed:
                cause = failed.undelivered[0].cause
                if not isinstance(cause, trio_kprod.Refused):
                    raise  # it stays kept, and so does all that is behind it
                refused.append((row.id, str(cause)))
        await self._write(lambda database: _remove(database, rows[0].id, rows[-1].id, refused))

    async def _write(self, work: Callable[[sqlite3.Connection], T]) -> T:
        """Run a transaction in a thread, one after the other: a disk may take its time."""

        def transaction() -> T:
            with self._database:
                return work(self._database)

        return await trio.to_thread.run_sync(transaction, limiter=self._one_at_a_time)


def _take(database: sqlite3.Connection) -> list[Row]:
    """The oldest rows, from now on marked as sent."""
    found = database.execute("SELECT id, topic, key, value, sent FROM kept ORDER BY id LIMIT ?", (_AT_ONCE,))
    rows = [Row(*row) for row in found]
    database.executemany("INSERT INTO sent_again VALUES (?)", [(row.id,) for row in rows if row.sent])
    database.executemany("UPDATE kept SET sent = sent + 1 WHERE id = ?", [(row.id,) for row in rows])
    return rows


def _remove(database: sqlite3.Connection, first: int, last: int, refused: Sequence[tuple[int, str]]) -> None:
    """All of them have their outcome; those that were refused are put aside."""
    for row, reason in refused:
        database.execute(
            "INSERT INTO refused SELECT id, topic, key, value, ? FROM kept WHERE id = ?", (reason, row)
        )
    database.execute("DELETE FROM kept WHERE id BETWEEN ? AND ?", (first, last))


@asynccontextmanager
async def open_outbox(path: str, producer: trio_kprod.Producer) -> AsyncIterator[Outbox]:
    """An outbox whose relay runs for as long as the block."""
    with closing(sqlite3.connect(path, check_same_thread=False)) as database:
        database.executescript(_TABLES)
        outbox = Outbox(database)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(outbox.relay, producer)
            yield outbox
            nursery.cancel_scope.cancel()


@cache
def standard_input() -> BinaryIO:
    """Not `sys.stdin` itself: Python aborts at its end if a thread still reads that."""
    return open(sys.stdin.fileno(), "rb", closefd=False)


async def relay_lines(servers: str, database: str, topic: str) -> None:
    async with (
        trio_kprod.open_producer(servers, delivery_threshold=_AT_ONCE) as producer,
        open_outbox(database, producer) as outbox,
    ):
        number = 0
        while line := await trio.to_thread.run_sync(standard_input().readline, abandon_on_cancel=True):
            key, separator, value = line.rstrip(b"\r\n").partition(b"=")
            await outbox.keep([(topic, key, value) if separator else (topic, None, key)])
            number += 1
            print("kept", number, flush=True)
        await outbox.empty()
        again, refused = await outbox.count("sent_again"), await outbox.count("refused")
        print(f"nothing is left: {again} were sent again and may be there twice, {refused} were refused")


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT[,...]", help="default: an embedded broker")
    parser.add_argument("--database", default=":memory:", help="a file; default: nothing is left behind")
    parser.add_argument("--topic", default="outbox")
    options = parser.parse_args()
    if options.bootstrap_servers is not None:
        await relay_lines(options.bootstrap_servers, options.database, options.topic)
    else:
        async with open_broker() as broker:
            await relay_lines(broker.bootstrap_servers, options.database, options.topic)


if __name__ == "__main__":
    trio.run(main)
