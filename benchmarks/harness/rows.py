"""The messages of a round, all made before the clock starts, no two values alike."""

from __future__ import annotations

import itertools
import json
import random
from collections.abc import Iterator

from .job import Job

#: So many different keys there are; the same key comes again as another object, as it would from a parser.
KEYS = 10_000

#: So many different events there are, but for their numbers: to make each anew takes longer than to send it.
_BODIES = 10_000

HEADERS = [("trace", b"4bf92f3577b34da6"), ("source", b"benchmark")]

#: What is sent to each partition before the clock starts: the first message is slow for everybody.
WARMING = b"warming up"

#: Tasks that make each value as they send it, because they look at memory.
_MADE_ON_THE_GO = ("full", "marks")

_ACTIONS = ("view", "search", "basket", "order", "return")


class Rows:
    """Values, with keys and topics beside them.

    Attributes:
        plain: whether there is nothing but values, to one topic.
    """

    def __init__(self, job: Job) -> None:
        count = 0 if job.task in _MADE_ON_THE_GO else job.messages
        self.topics = list(job.topics)
        self._partitions = job.partitions
        self.values = _events(count) if job.json else digits(count, job.size)
        self.keys = [b"user-%d" % (number * 7919 % KEYS) for number in range(count)] if job.keyed else None
        self.plain = len(self.topics) == 1 and not job.keyed and not job.headers

    def __iter__(self) -> Iterator[tuple[str, bytes, bytes | None]]:
        keys = self.keys if self.keys is not None else itertools.repeat(None)
        return zip(itertools.cycle(self.topics), self.values, keys)

    def places(self) -> Iterator[tuple[str, int]]:
        """Every partition there is."""
        return itertools.product(self.topics, range(self._partitions))


def digits(count: int, size: int) -> list[bytes]:
    """Values of `size` bytes."""
    return [b"%0*d" % (size, number) for number in range(count)]


def _events(count: int) -> list[bytes]:
    """Each with a number of its own; what follows it comes again only after more than a batch holds."""
    chance = random.Random(1)
    bodies = [json.dumps(_event(number, chance)).encode()[1:] for number in range(min(count, _BODIES))]
    return [b'{"id": %d, %b' % (number, bodies[number % _BODIES]) for number in range(count)]


def _event(number: int, chance: random.Random) -> dict[str, object]:
    return {
        "time": f"2026-01-01T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}Z",
        "user": f"user-{chance.randrange(KEYS)}",
        "action": chance.choice(_ACTIONS),
        "path": f"/products/{chance.randrange(1000)}",
        "price": round(chance.random() * 100, 2),
        "agent": "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
    }
