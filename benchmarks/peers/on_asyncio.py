"""Drives the producers that run in an asyncio loop: aiokafka's, and confluent-kafka's `AIOProducer`.

Both have a coroutine that returns a future for each message, so all but opening them is the same.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from time import perf_counter
from typing import Any, NamedTuple

from benchmarks.harness.job import Job
from benchmarks.harness.rows import WARMING, Rows
from benchmarks.harness.watch import TIMER_INTERVAL, Pacer, Watch

#: Futures outstanding at most; with more or fewer neither of them is faster.
_OUTSTANDING = 5_000

Send = Callable[..., Awaitable[asyncio.Future[Any]]]


class _Open(NamedTuple):
    send: Send
    flush: Callable[[], Awaitable[object]]


def run(job: Job, rows: Rows, watch: Watch) -> None:
    """Do the job."""
    asyncio.run(_TASKS[job.task](job, rows, watch))


@contextlib.asynccontextmanager
async def _aiokafka(job: Job) -> AsyncIterator[_Open]:
    from aiokafka import AIOKafkaProducer

    producer = AIOKafkaProducer(
        bootstrap_servers=job.servers, compression_type=job.compression, **job.settings
    )
    await producer.start()
    try:
        yield _Open(producer.send, producer.flush)
    finally:
        await producer.stop()


@contextlib.asynccontextmanager
async def _aio_producer(job: Job) -> AsyncIterator[_Open]:
    from confluent_kafka.aio import AIOProducer

    settings = {"batch_size": max(1, int(job.rate / 1000)), **job.settings}
    config = {name: value for name, value in settings.items() if name not in ("batch_size", "buffer_timeout")}
    config |= {
        "log_level": 0,
        "bootstrap.servers": job.servers,
        "compression.type": job.compression or "none",
    }
    producer = AIOProducer(
        config, batch_size=settings["batch_size"], buffer_timeout=settings["buffer_timeout"]
    )
    async with producer:
        polling = asyncio.create_task(_poll(producer))
        yield _Open(producer.produce, producer.flush)
        polling.cancel()


async def _poll(producer: Any) -> None:
    # Without it an acknowledgement is told when the next batch is sent, and not before.
    while True:
        await producer.poll(0.1)


_OPEN = {"aiokafka": _aiokafka, "AIOProducer": _aio_producer}


async def _warm(send: Send, flush: Callable[[], Awaitable[object]], rows: Rows, watch: Watch) -> None:
    futures = [await send(topic, WARMING, partition=partition) for topic, partition in rows.places()]
    await flush()
    await asyncio.gather(*futures)
    watch.ready()


@contextlib.asynccontextmanager
async def _timer(job: Job, watch: Watch) -> AsyncIterator[None]:
    if not job.timer:
        yield
        return
    firing = asyncio.create_task(_fire(watch))
    yield
    firing.cancel()


async def _fire(watch: Watch) -> None:
    while True:
        due = perf_counter() + TIMER_INTERVAL
        await asyncio.sleep(TIMER_INTERVAL)
        watch.late.append(perf_counter() - due)


async def _flood(job: Job, rows: Rows, watch: Watch) -> None:
    async with _OPEN[job.peer](job) as (send, flush):
        await _warm(send, flush, rows, watch)
        async with _timer(job, watch):
            with watch.running():
                await _send_all(send, rows)
                await flush()


async def _send_all(send: Send, rows: Rows) -> None:
    futures: deque[asyncio.Future[Any]] = deque()
    if rows.plain:
        (topic,) = rows.topics
        for value in rows.values:
            futures.append(await send(topic, value))
            if len(futures) > _OUTSTANDING:
                await futures.popleft()
    elif rows.headers is None:
        for topic, value, key, _ in rows:
            futures.append(await send(topic, value, key=key))
            if len(futures) > _OUTSTANDING:
                await futures.popleft()
    else:
        for topic, value, key, headers in rows:
            futures.append(await send(topic, value, key=key, headers=headers))
            if len(futures) > _OUTSTANDING:
                await futures.popleft()


async def _paced(job: Job, rows: Rows, watch: Watch) -> None:
    async with _OPEN[job.peer](job) as (send, flush):
        await _warm(send, flush, rows, watch)
        async with _timer(job, watch):
            with watch.running():
                await _pace(job, rows, watch, send)
                await flush()
                await _until_told(watch, job.messages)


async def _until_told(watch: Watch, messages: int) -> None:
    while watch.told < messages:  # noqa: ASYNC110 - futures tell in one of the loop's next turns
        await asyncio.sleep(0)


async def _pace(job: Job, rows: Rows, watch: Watch, send: Send) -> None:
    (topic,), pacer = rows.topics, Pacer(job.rate, job.messages)
    while not pacer.done:
        for number in pacer.due():
            began = perf_counter()
            future = await send(topic, rows.values[number], partition=number % job.partitions)
            future.add_done_callback(partial(_told, watch, began))
        await asyncio.sleep(pacer.pause())


def _told(watch: Watch, began: float, future: asyncio.Future[Any]) -> None:
    if future.exception() is None:
        watch.acknowledged(began)
    else:
        watch.fail()


async def _waited(job: Job, rows: Rows, watch: Watch) -> None:
    values = iter(rows.values)

    async def send_and_wait() -> None:
        for value in values:
            began = perf_counter()
            await (await send(rows.topics[0], value))
            watch.acknowledged(began)

    async with _OPEN[job.peer](job) as (send, flush):
        await _warm(send, flush, rows, watch)
        with watch.running():
            await asyncio.gather(*(send_and_wait() for _ in range(job.tasks)))


_TASKS = {"flood": _flood, "paced": _paced, "waited": _waited}
