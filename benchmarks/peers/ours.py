"""Drives trio_kprod, from a trio task."""

from __future__ import annotations

import contextlib
import gc
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from itertools import repeat
from time import perf_counter
from typing import Any

import trio

import trio_kprod
from benchmarks.harness.job import Job
from benchmarks.harness.rows import WARMING, Rows
from benchmarks.harness.watch import TIMER_INTERVAL, Pacer, Watch, resident_mib
from benchmarks.peers import PEERS

#: How long nothing must move before everything counts as full.
_STILL = 1.0


def run(job: Job, rows: Rows, watch: Watch) -> None:
    """Do the job."""
    trio.run(_TASKS[job.task], job, rows, watch)


def _open(job: Job, **more: Any) -> Any:
    settings: Any = {"compression_type": job.compression, **job.settings, **more}
    return trio_kprod.open_producer(job.servers, **settings)


async def _warm(producer: trio_kprod.Producer, rows: Rows, watch: Watch) -> None:
    for topic, partition in rows.places():
        await producer.send(topic, WARMING, partition=partition)
    await producer.flush()
    watch.ready()


@contextlib.asynccontextmanager
async def _timer(job: Job, watch: Watch) -> AsyncIterator[None]:
    async with trio.open_nursery() as nursery:
        if job.timer:
            nursery.start_soon(_fire, watch)
        yield
        nursery.cancel_scope.cancel()


async def _fire(watch: Watch) -> None:
    while True:
        due = perf_counter() + TIMER_INTERVAL
        await trio.sleep(TIMER_INTERVAL)
        watch.late.append(perf_counter() - due)


# -- as fast as it goes ------------------------------------------------------------------------------------


async def _flood(job: Job, rows: Rows, watch: Watch) -> None:
    async with _open(job) as producer:
        await _warm(producer, rows, watch)
        async with _timer(job, watch):
            with watch.running():
                await _SENDERS[PEERS[job.peer].way](producer, rows, job)
                await producer.flush()


async def _send_nowait(producer: trio_kprod.Producer, rows: Rows, _: Job) -> None:
    if rows.plain:
        (topic,) = rows.topics
        for value in rows.values:
            try:
                producer.send_nowait(topic, value)
            except trio_kprod.BufferOverflow:
                await producer.send(topic, value)
    else:
        for topic, value, key, headers in rows:
            try:
                producer.send_nowait(topic, value, key=key, headers=headers)
            except trio_kprod.BufferOverflow:
                await producer.send(topic, value, key=key, headers=headers)


async def _send(producer: trio_kprod.Producer, rows: Rows, job: Job) -> None:
    if rows.plain:
        await _in_tasks(job.tasks, partial(_send_values, producer, rows.topics[0], iter(rows.values)))
    else:
        for topic, value, key, headers in rows:
            await producer.send(topic, value, key=key, headers=headers)


async def _send_values(producer: trio_kprod.Producer, topic: str, values: Iterable[bytes]) -> None:
    for value in values:
        await producer.send(topic, value)


async def _in_tasks(tasks: int, work: Callable[[], Awaitable[None]]) -> None:
    async with trio.open_nursery() as nursery:
        for _ in range(tasks):
            nursery.start_soon(work)


async def _send_many(producer: trio_kprod.Producer, rows: Rows, _: Job) -> None:
    count = len(rows.topics)
    for number, topic in enumerate(rows.topics):
        values: Iterable[Any] = rows.values[number::count] if count > 1 else rows.values
        if rows.keys is not None:
            values = zip(rows.keys[number::count], values, strict=True)
        await producer.send_many(topic, values)


_SENDERS = {"send_nowait": _send_nowait, "await send": _send, "send_many": _send_many}


# -- at a rate ---------------------------------------------------------------------------------------------


class _Acks(trio_kprod.Instrument):
    """Knows which messages an acknowledgement is for: within a partition they come in order."""

    def __init__(self, watch: Watch, partitions: int) -> None:
        self.sent: list[deque[float]] = [deque() for _ in range(partitions)]
        self._watch = watch

    def ack_messages(self, *, partition: int, message_count: int, **_: object) -> None:
        sent = self.sent[partition]
        if not sent:
            return  # it was to warm up
        for _number in range(message_count):
            self._watch.acknowledged(sent.popleft())


async def _paced(job: Job, rows: Rows, watch: Watch) -> None:
    acks = _Acks(watch, job.partitions)
    async with _open(job, instruments=(acks,), on_undelivered=watch.fail) as producer:
        await _warm(producer, rows, watch)
        async with _timer(job, watch):
            with watch.running():
                await _pace(job, rows, producer, acks)
                await producer.flush()


async def _pace(job: Job, rows: Rows, producer: trio_kprod.Producer, acks: _Acks) -> None:
    nowait = PEERS[job.peer].way == "send_nowait"
    (topic,), pacer = rows.topics, Pacer(job.rate, job.messages)
    while not pacer.done:
        for number in pacer.due():
            partition = number % job.partitions
            acks.sent[partition].append(perf_counter())
            try:
                if nowait:
                    producer.send_nowait(topic, rows.values[number], partition=partition)
                    continue
            except trio_kprod.BufferOverflow:
                pass
            await producer.send(topic, rows.values[number], partition=partition)
        await trio.sleep(pacer.pause())


async def _waited(job: Job, rows: Rows, watch: Watch) -> None:
    values = iter(rows.values)

    async def send_and_wait() -> None:
        for value in values:
            began = perf_counter()
            await producer.send_and_wait(rows.topics[0], value)
            watch.acknowledged(began)

    async with _open(job) as producer:
        await _warm(producer, rows, watch)
        with watch.running():
            await _in_tasks(job.tasks, send_and_wait)


# -- what only we have -------------------------------------------------------------------------------------


async def _calls(job: Job, rows: Rows, watch: Watch) -> None:
    """How long `send_nowait` takes beside a bare channel's, in bursts that fill the queue, in turn."""
    size = 1000
    entrance, way_out = trio.open_memory_channel[Any](size)
    ours: list[float] = []
    bare: list[float] = []
    async with _open(job, max_queue_size=size) as producer:
        await _warm(producer, rows, watch)
        with watch.running():
            for start in range(0, job.messages - size + 1, size):
                burst = rows.values[start : start + size]
                ours.append(_burst(partial(_to_producer, producer, rows.topics[0]), burst))
                await producer.flush()
                bare.append(_burst(partial(_to_channel, entrance), burst))
                for _ in repeat(None, size):
                    way_out.receive_nowait()
    best, channel = (sorted(each)[len(each) // 2] / size * 1e9 for each in (ours, bare))
    watch.extra = {"ours ns": best, "channel ns": channel, "times the channel's": best / channel}


def _burst(send_all: Callable[[list[bytes]], None], values: list[bytes]) -> float:
    began = perf_counter()
    send_all(values)
    return perf_counter() - began


def _to_producer(producer: trio_kprod.Producer, topic: str, values: list[bytes]) -> None:
    for value in values:
        producer.send_nowait(topic, value)


def _to_channel(channel: trio.MemorySendChannel[Any], values: list[bytes]) -> None:
    for value in values:
        channel.send_nowait(value)


async def _full(job: Job, rows: Rows, watch: Watch) -> None:
    """Resident memory when nothing more is taken, the broker being frozen; values are made as they go."""
    with contextlib.suppress(trio_kprod.DeliveryFailed):
        async with _open(job) as producer:
            await _warm(producer, rows, watch)
            before = resident_mib()
            with watch.running():
                held = await _fill(producer, rows.topics[0], job.size)
            more = resident_mib() - before
            watch.extra = {"held": held, "MiB": more, "bytes a message": more * 2**20 / held}
            producer.abort()


async def _fill(producer: trio_kprod.Producer, topic: str, size: int) -> int:
    count, moved_at = 0, perf_counter()
    while perf_counter() < moved_at + _STILL:
        try:
            producer.send_nowait(topic, b"%0*d" % (size, count))
        except trio_kprod.BufferOverflow:
            await trio.sleep(0.01)
        else:
            count, moved_at = count + 1, perf_counter()
    return count


async def _marks(job: Job, rows: Rows, watch: Watch) -> None:
    """Resident memory after a tenth of the messages, and after all; values are made as they go."""
    first, everything = range(job.messages // 10), range(job.messages // 10, job.messages)
    async with _open(job) as producer:
        await _warm(producer, rows, watch)
        with watch.running():
            for name, numbers in (("first MiB", first), ("last MiB", everything)):
                await _send_made(producer, rows.topics[0], job.size, numbers)
                gc.collect()
                watch.extra[name] = resident_mib()


async def _send_made(producer: trio_kprod.Producer, topic: str, size: int, numbers: range) -> None:
    for number in numbers:
        value = b"%0*d" % (size, number)
        try:
            producer.send_nowait(topic, value)
        except trio_kprod.BufferOverflow:
            await producer.send(topic, value)
    await producer.flush()


_TASKS = {
    "flood": _flood,
    "paced": _paced,
    "waited": _waited,
    "calls": _calls,
    "full": _full,
    "marks": _marks,
}
