"""Drives those without an event loop: kafka-python's `KafkaProducer`, confluent-kafka's `Producer`."""

from __future__ import annotations

import abc
import threading
import time
from collections.abc import Callable
from functools import partial
from time import perf_counter
from typing import Any

from benchmarks.harness.job import Job
from benchmarks.harness.rows import WARMING, Rows
from benchmarks.harness.watch import Pacer, Watch


class _Driver(abc.ABC):
    """One of the two."""

    def __init__(self, producer: Any, watch: Watch) -> None:
        self._producer = producer
        self.watch = watch

    @abc.abstractmethod
    def warm(self, topic: str, partition: int) -> None: ...

    @abc.abstractmethod
    def flood(self, rows: Rows) -> None: ...

    @abc.abstractmethod
    def send(self, topic: str, value: bytes, partition: int) -> None:
        """Send, and let the watch know when it is acknowledged."""

    @abc.abstractmethod
    def wait(self, topic: str, value: bytes) -> None:
        """Send, and return when it is acknowledged."""

    def pause(self, seconds: float) -> None:
        time.sleep(seconds)

    def flush(self) -> None:
        self._producer.flush()


class _KafkaPython(_Driver):
    def __init__(self, job: Job, watch: Watch) -> None:
        from kafka import KafkaProducer

        given = {"bootstrap_servers": job.servers, "compression_type": job.compression}
        super().__init__(KafkaProducer(**given, **job.settings), watch)

    def warm(self, topic: str, partition: int) -> None:
        self._producer.send(topic, WARMING, partition=partition)

    def flood(self, rows: Rows) -> None:
        send = self._producer.send
        if rows.plain:
            (topic,) = rows.topics
            for value in rows.values:
                send(topic, value)
        else:
            for topic, value, key, headers in rows:
                send(topic, value, key=key, headers=headers)

    def send(self, topic: str, value: bytes, partition: int) -> None:
        told = partial(self.watch.acknowledged, perf_counter())
        future = self._producer.send(topic, value, partition=partition)
        future.add_callback(told)
        future.add_errback(self.watch.fail)

    def wait(self, topic: str, value: bytes) -> None:
        self._producer.send(topic, value).get(60)


class _Confluent(_Driver):
    def __init__(self, job: Job, watch: Watch) -> None:
        from confluent_kafka import Producer

        given = {
            "log_level": 0,
            "bootstrap.servers": job.servers,
            "compression.type": job.compression or "none",
        }
        super().__init__(Producer({**given, **job.settings}), watch)
        # Among threads that all poll, an acknowledgement reaches one that does not wait for it.
        self._polled_by_another = job.tasks > 1
        if self._polled_by_another:
            threading.Thread(target=self._poll, daemon=True).start()

    def warm(self, topic: str, partition: int) -> None:
        self._producer.produce(topic, WARMING, partition=partition)

    def flood(self, rows: Rows) -> None:
        send = self._producer.produce
        if rows.plain:
            (topic,) = rows.topics
            for value in rows.values:
                try:
                    send(topic, value)
                except BufferError:
                    self._send_when_there_is_room(partial(send, topic, value))
        else:
            for topic, value, key, headers in rows:
                try:
                    send(topic, value, key=key, headers=headers)
                except BufferError:
                    self._send_when_there_is_room(partial(send, topic, value, key=key, headers=headers))

    def _send_when_there_is_room(self, send: Callable[[], None]) -> None:
        while True:
            self._producer.poll(0.1)
            try:
                return send()
            except BufferError:
                pass

    def send(self, topic: str, value: bytes, partition: int) -> None:
        told = partial(self._told, perf_counter())
        send = partial(self._producer.produce, topic, value, partition=partition, on_delivery=told)
        try:
            send()
        except BufferError:
            self._send_when_there_is_room(send)

    def _told(self, began: float, error: object, _: object) -> None:
        if error is None:
            self.watch.acknowledged(began)
        else:
            self.watch.fail()

    def pause(self, seconds: float) -> None:
        # It waits for whole milliseconds, rounded down, where loops round up: at nought it would spin.
        deadline = perf_counter() + seconds
        while self._producer.poll(max(0.001, deadline - perf_counter())) and perf_counter() < deadline:
            pass

    def wait(self, topic: str, value: bytes) -> None:
        delivered = threading.Event()
        self._producer.produce(topic, value, on_delivery=lambda *_: delivered.set())
        if self._polled_by_another:
            delivered.wait()
        while not delivered.is_set():
            self._producer.poll(0.1)

    def _poll(self) -> None:
        while True:
            self._producer.poll(0.1)


_DRIVERS: dict[str, Callable[[Job, Watch], _Driver]] = {
    "KafkaProducer": _KafkaPython,
    "Producer (C)": _Confluent,
}


def run(job: Job, rows: Rows, watch: Watch) -> None:
    """Do the job."""
    driver = _DRIVERS[job.peer](job, watch)
    for topic, partition in rows.places():
        driver.warm(topic, partition)
    driver.flush()
    watch.ready()
    with watch.running():
        _TASKS[job.task](job, rows, driver)
        driver.flush()


def _flood(_: Job, rows: Rows, driver: _Driver) -> None:
    driver.flood(rows)


def _paced(job: Job, rows: Rows, driver: _Driver) -> None:
    (topic,), pacer = rows.topics, Pacer(job.rate, job.messages)
    while not pacer.done:
        for number in pacer.due():
            driver.send(topic, rows.values[number], number % job.partitions)
        driver.pause(pacer.pause())


def _waited(job: Job, rows: Rows, driver: _Driver) -> None:
    values = iter(rows.values)
    lock = threading.Lock()

    def send_and_wait() -> None:
        while True:
            with lock:  # an iterator is not to be shared by threads
                value = next(values, None)
            if value is None:
                return
            began = perf_counter()
            driver.wait(rows.topics[0], value)
            driver.watch.acknowledged(began)

    threads = [threading.Thread(target=send_and_wait) for _ in range(job.tasks)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


_TASKS = {"flood": _flood, "paced": _paced, "waited": _waited}
