"""Each measure: what is done to one producer, and the figures that come of it."""

from __future__ import annotations

import gc
import itertools
import logging
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from typing import NamedTuple

import trio
from kafka import KafkaConsumer
from kafka.structs import TopicPartition

import trio_kprod
from benchmarks.endurance.places import Place, open_place
from benchmarks.harness.watch import resident_mib
from trio_kprod import Producer

#: A figure's name and what was found.
Figures = dict[str, float]

CPU, GROWN, LINES, LOST, DISORDER = "CPU %", "MiB grown", "lines a minute", "lost", "out of order"
PER_TOPIC, RATE, RECOVERED, AHEAD = "KiB a topic", "messages/s", "s to recover", "furthest ahead"
DOUBLED = "duplicates"

VALUE_SIZE = 100


class Scale(NamedTuple):
    """How long and how much."""

    seconds: float = 600.0
    messages: int = 10_000_000
    topics: int = 10_000
    tasks: int = 1_000
    sends: int = 100


QUICK = Scale(seconds=3.0, messages=100_000, topics=200, tasks=100, sends=20)


class Lines(logging.Handler):
    """Counts what is logged above DEBUG."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.count = 0
        self.logger = logging.getLogger("trio_kprod.endurance")
        self.logger.setLevel(logging.INFO)
        self.logger.addHandler(self)
        self.logger.propagate = False

    def emit(self, _: logging.LogRecord) -> None:
        self.count += 1


class Use:
    """What this process takes from now on."""

    def __init__(self) -> None:
        gc.collect()
        self._began, self._cpu, self._mib = time.monotonic(), time.process_time(), resident_mib()

    def figures(self) -> Figures:
        """Percent of a processor, and the memory it has taken since."""
        cpu = (time.process_time() - self._cpu) / (time.monotonic() - self._began)
        gc.collect()
        return {CPU: 100 * cpu, GROWN: resident_mib() - self._mib}


def _lost(producer: Producer[bytes, bytes]) -> Figures:
    """After its block: what was accepted and not delivered."""
    now = producer.statistics()
    return {LOST: now.accepted - now.delivered}


async def idle(place: Place, own_thread: bool, scale: Scale) -> Figures:
    """A producer with open connections and a timer, and nothing to do; then it still works."""
    async with trio_kprod.open_producer(
        place.servers, own_thread=own_thread, delivery_interval=1.0
    ) as producer:
        for number in range(1_000):
            await producer.send(f"idle-{number % 10}", b"%d" % number)
        await producer.flush()
        await trio.sleep(min(5.0, scale.seconds / 10))
        use = Use()
        await trio.sleep(scale.seconds)
        figures = use.figures()
        await producer.send_and_wait("idle-0", b"still there")
    return {**figures, **_lost(producer)}


async def down(place: Place, own_thread: bool, scale: Scale) -> Figures:
    """Nobody listens where Kafka was, and a task waits for room."""
    return await _away(place, own_thread, scale, place.go_away, place.come_back)


async def frozen(place: Place, own_thread: bool, scale: Scale) -> Figures:
    """Kafka's connections stay open, and it does not answer."""
    return await _away(place, own_thread, scale, place.freeze, place.thaw)


async def _away(
    place: Place,
    own_thread: bool,
    scale: Scale,
    go: Callable[[], None],
    come_back: Callable[[], None],
) -> Figures:
    lines, topic = Lines(), f"away-{time.time_ns()}"
    async with trio_kprod.open_producer(
        place.servers,
        own_thread=own_thread,
        delivery_interval=0.1,
        shutdown_timeout=60,
        logger=lines.logger,
    ) as producer:
        await producer.send_and_wait(topic, b"-1")
        await trio.to_thread.run_sync(go)
        lines.count = 0
        figures = await _wait_for_room(producer, topic, scale, lines)
        await trio.to_thread.run_sync(come_back)
        back = time.monotonic()
        await producer.flush()
        figures[RECOVERED] = time.monotonic() - back
    values = place.values([topic])[topic]
    accepted = producer.statistics().accepted
    return {
        **figures,
        LOST: accepted - len(set(values)),
        DOUBLED: len(values) - len(set(values)),
        "held": accepted,
    }


async def _wait_for_room(producer: Producer[bytes, bytes], topic: str, scale: Scale, lines: Lines) -> Figures:
    """A task sends until there is no more room, and waits; what does that take?"""
    began = time.monotonic()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(_send_for_ever, producer, topic)
        while not producer.statistics().tasks_waiting:  # noqa: ASYNC110 (nothing tells)
            await trio.sleep(0.1)
        await trio.sleep(scale.seconds / 20)
        use = Use()
        await trio.sleep(scale.seconds)
        figures = use.figures()
        nursery.cancel_scope.cancel()
    minutes = (time.monotonic() - began) / 60
    return {**figures, LINES: lines.count / minutes, "lines": lines.count}


async def _send_for_ever(producer: Producer[bytes, bytes], topic: str) -> None:
    for number in itertools.count():
        await producer.send(topic, b"%d" % number)


async def many(place: Place, own_thread: bool, scale: Scale) -> Figures:
    """As fast as it goes; memory is looked at after a tenth of them, and after all."""
    topic = f"many-{time.time_ns()}"
    async with trio_kprod.open_producer(
        place.servers, own_thread=own_thread, shutdown_timeout=60
    ) as producer:
        first = scale.messages // 10
        await producer.send_many(topic, _values(first))
        await producer.flush()
        use, began = Use(), time.monotonic()
        await producer.send_many(topic, _values(scale.messages - first))
        await producer.flush()
        figures = {**use.figures(), RATE: (scale.messages - first) / (time.monotonic() - began)}
    written = await trio.to_thread.run_sync(_written, place.servers, topic)
    return {**figures, LOST: scale.messages - written}


def _values(count: int) -> Iterator[bytes]:
    for number in range(count):
        yield (b"%d" % number).ljust(VALUE_SIZE, b"x")


def _written(servers: str, topic: str) -> int:
    consumer = KafkaConsumer(bootstrap_servers=servers, group_id=None, enable_auto_commit=False)
    with closing(consumer):
        numbers = consumer.partitions_for_topic(topic)
        ends = consumer.end_offsets([TopicPartition(topic, number) for number in numbers])
    return sum(ends.values())


async def topics(place: Place, own_thread: bool, scale: Scale) -> Figures:
    """Five messages to each; then nothing."""
    names, rounds = [f"topic-{number:05}" for number in range(scale.topics)], 5
    place.create(names)
    async with trio_kprod.open_producer(
        place.servers, own_thread=own_thread, delivery_threshold=1_000, shutdown_timeout=60
    ) as producer:
        await producer.send_and_wait("warm", b"0")
        use, began = Use(), time.monotonic()
        for number in range(rounds):
            for name in names:
                await producer.send(name, b"%d" % number)
        await producer.flush()
        rate = rounds * len(names) / (time.monotonic() - began)
        figures = {PER_TOPIC: 1024 * use.figures()[GROWN] / len(names), RATE: rate}
        use = Use()
        await trio.sleep(scale.seconds / 10)
        figures[CPU] = use.figures()[CPU]
    logs = place.values(names)
    wanted = [b"%d" % number for number in range(rounds)]
    missing = sum(len(set(wanted) - set(log)) for log in logs.values())
    doubled = sum(len(log) - len(set(log)) for log in logs.values())
    moved = sum(sorted(log) == wanted != log for log in logs.values())
    return {**figures, LOST: missing, DOUBLED: doubled, DISORDER: moved}


async def tasks(place: Place, own_thread: bool, scale: Scale) -> Figures:
    """All wait for room nearly all of the time, and each has its turn."""
    numbers = itertools.count()
    done = [0] * scale.tasks
    behind: list[int] = []

    async def work(task: int, producer: Producer[bytes, bytes]) -> None:
        for _ in range(scale.sends):
            # Nothing happens between the number and its place in the line.
            await producer.send("tasks", b"%d" % next(numbers), partition=0)
            done[task] += 1
        if not behind:
            behind.append(scale.sends - min(done))

    place.create(["tasks"])
    async with trio_kprod.open_producer(
        place.servers,
        own_thread=own_thread,
        max_queue_size=10,
        max_buffer_size=scale.tasks // 10,
        shutdown_timeout=60,
    ) as producer:
        await producer.partitions_for("tasks")
        use, began = Use(), time.monotonic()
        async with trio.open_nursery() as nursery:
            for task in range(scale.tasks):
                nursery.start_soon(work, task, producer)
        rate = sum(done) / (time.monotonic() - began)
        grown = use.figures()[GROWN]
    log = [int(value) for value in place.values(["tasks"])["tasks"]]
    moved = sum(later < sooner for sooner, later in itertools.pairwise(log))
    lost = len(set(range(sum(done))) - set(log))
    doubled = len(log) - len(set(log))
    return {DISORDER: moved, LOST: lost, DOUBLED: doubled, AHEAD: behind[0], RATE: rate, GROWN: grown}


MEASURES: dict[str, Callable[[Place, bool, Scale], Awaitable[Figures]]] = {
    "idle": idle,
    "down": down,
    "frozen": frozen,
    "many": many,
    "topics": topics,
    "tasks": tasks,
}


def measure(name: str, place: Place, own_thread: bool, scale: Scale) -> Figures:
    """One of `MEASURES`, in this process."""

    async def main() -> Figures:
        return await MEASURES[name](place, own_thread, scale)

    return trio.run(main)


def measure_with(name: str, kafka: str, own_thread: bool, scale: Scale) -> Figures:
    """The same, with a Kafka of its own; see `open_place`."""
    with open_place(kafka) as place:
        return measure(name, place, own_thread, scale)
