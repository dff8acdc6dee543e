"""No function in C keeps what it is given, or forgets to free what it makes, whether it returns or raises.

``python leaks.py`` calls each some million times and compares, before and after, the references to what
was given, and the memory of the process.
"""

from __future__ import annotations

import contextlib
import gc
import sys
from collections import deque
from collections.abc import Callable
from typing import Any

from random_inputs import Intake, Ledger, Room, Topic
from trio_kprod_speedups import Sender, encode_records, murmur2

#: Of the memory of the process, which the allocators may hold on to: a leak of a byte a call is more.
ALLOWED = 512 * 1024
CALLS = 1_000_000


class Given:
    """What is given: objects of its own, so that references to them can be counted."""

    def __init__(self) -> None:
        self.value, self.key = b"value" * 9, b"key" * 9
        self.headers = [("name" * 9, b"header" * 9), ("é" * 9, None)]
        self.partition, self.stamp = 2**30 + 7, 1_700_000_000_007
        self.entry = ("t", self.value, self.key, tuple(self.headers), None, self.stamp, 0, 0.0, None, 0)
        self.wrong = (*self.entry[:3], (("name" * 9, "text"),), *self.entry[4:])
        self.queue: deque[Any] = deque(maxlen=1)
        self.topics: dict[str, Any] = {"topic": Topic()}
        self.parts = {
            "room": Room(), "intake": Intake(), "ledger": Ledger(),
            "topics": self.topics, "queue": self.queue,
            "clock": lambda: 0.0, "read_wall_clock": lambda _: 0, "token": None,
            "current_token": lambda: None,
            "send_nowait": self._in_python, "offer": self._in_python, "accept_item": self._in_python,
        }  # fmt: skip
        room, intake, ledger = self.parts["room"], self.parts["intake"], self.parts["ledger"]
        topic = self.topics["topic"]
        room.bound, room.max_bytes, room.wake_at = 10, sys.maxsize, 100.0
        intake.millisecond, intake.millisecond_ends, ledger.run = self.stamp, 1.0, self.partition
        room.unsettled_bytes = room.tasks_waiting = topic.unsettled = topic.unsettled_bytes = 0
        topic.name, topic.max_message_size, topic.limited = "topic" * 9, 10_000, False
        self.sender = Sender(**self.parts)

    def _in_python(self, *_: Any, **keywords: Any) -> None:
        if keywords.get("nonsense"):
            raise TypeError

    def references(self) -> list[int]:
        self.queue.clear()
        gc.collect()
        every = [*vars(self).values(), *self.headers, *self.parts.values(), self.topics["topic"].name]
        return [sys.getrefcount(one) for one in every if one is not None]


def calls(given: Given) -> dict[str, Callable[[], object]]:
    """Every way through."""
    send, topic = given.sender.send_nowait, "topic"
    batch = [given.entry] * 3
    return {
        "a batch": lambda: encode_records(batch, 61),
        "a large batch": lambda: encode_records([given.entry] * 300, 61),
        "a batch with a wrong entry": lambda: encode_records([*batch, given.wrong], 61),
        "a batch that is none": lambda: encode_records([None], 61),
        "a key": lambda: murmur2(given.key),
        "a key that is none": lambda: murmur2(given.headers),
        "a send": lambda: send(
            topic, given.value, key=given.key, headers=given.headers, partition=given.partition,
            timestamp_ms=given.stamp,
        ),
        "a send in Python": lambda: send(topic, given.value, key=given.key, headers=iter(given.headers)),
        "a send that raises": lambda: send(topic, given.value, key=given.key, nonsense=True),
        "a send to another topic": lambda: send("new", given.value),
        "a send without room": lambda: send(topic, b"", headers=given.headers * 200),
        "an offer": lambda: given.sender.offer(
            topic, given.value, given.key, given.headers, given.partition, given.stamp
        ),
        "a tracked one": lambda: given.sender.offer(topic, given.value, given.key, None, None, None, 7),
        "an offer in Python": lambda: given.sender.offer(topic, given.value, given.key, nonsense=True),
        "an item": lambda: given.sender.accept_item(topic, (given.key, given.value)),
        "an item in Python": lambda: given.sender.accept_item(topic, [given.key]),
        "a sender": lambda: Sender(**given.parts),
        "a sender that is none": lambda: Sender(**{**given.parts, "queue": None}),
        "counters": lambda: (Room(), Topic(), Intake(), Ledger()),
    }  # fmt: skip


def resident() -> int:
    """The memory of the process, in bytes."""
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * 4096


def check(call: Callable[[], object], given: Given, count: int) -> int:
    """The growth of memory."""
    references = given.references()
    sizes = []
    for _ in range(2):  # the first time the allocators take what they need
        for _ in range(count):
            with contextlib.suppress(TypeError, AttributeError):
                call()
        assert given.references() == references
        sizes.append(resident())
    return sizes[1] - sizes[0]


def main() -> None:
    given = Given()
    for name, call in calls(given).items():
        count = CALLS // 50 if "large" in name else CALLS
        growth = check(call, given, count)
        print(f"{name}: {2 * count} times, {growth // 1024} KiB more after the second half")
        assert growth < ALLOWED


if __name__ == "__main__":
    main()
