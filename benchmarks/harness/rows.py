"""The messages of a round, all made before the clock starts, no two values alike."""

from __future__ import annotations

import itertools
import json
import random
import uuid
from collections.abc import Iterable, Iterator

from .job import Job

#: So many different keys there are; the same key comes again as another object, as it would from a parser.
KEYS = 10_000

#: So many documents there are, but for their numbers: to make each anew takes longer than to send it.
_BODIES = 10_000

#: What is sent to each partition before the clock starts: the first message is slow for everybody.
WARMING = b"warming up"

#: Tasks that make each value as they send it, because they look at memory.
_MADE_ON_THE_GO = ("full", "marks")

_ACTIONS = ("view", "search", "basket", "order", "return")
_AGENTS = (
    "Mozilla/5.0 (X11; Linux x86_64) AppleWebKit/537.36",
    "Mozilla/5.0 (iPhone; CPU iPhone OS 18_2 like Mac OS X)",
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64; rv:135.0)",
)

Headers = list[tuple[str, bytes]]


class Rows:
    """Values, with keys and headers beside them.

    Attributes:
        headers: of each message; None if there are none.
        plain: whether there is nothing but values, to one topic.
    """

    def __init__(self, job: Job) -> None:
        count = 0 if job.task in _MADE_ON_THE_GO else job.messages
        self.topics = list(job.topics)
        self._partitions = job.partitions
        self.values = _events(count) if job.json else digits(count, job.size)
        self.keys = _keys(job, count)
        self.headers = _headers(count) if job.headers else None
        self.plain = len(self.topics) == 1 and self.keys is None and self.headers is None

    def __iter__(self) -> Iterator[tuple[str, bytes, bytes | None, Headers | None]]:
        nothing = itertools.repeat(None)
        keys: Iterable[bytes | None] = nothing if self.keys is None else self.keys
        headers: Iterable[Headers | None] = nothing if self.headers is None else self.headers
        return zip(itertools.cycle(self.topics), self.values, keys, headers)

    def places(self) -> Iterator[tuple[str, int]]:
        """Every partition there is."""
        return itertools.product(self.topics, range(self._partitions))


def digits(count: int, size: int) -> list[bytes]:
    """Values of `size` bytes."""
    return [b"%0*d" % (size, number) for number in range(count)]


def _keys(job: Job, count: int) -> list[bytes] | None:
    if job.unique_keys:
        chance = random.Random(2)
        return [str(uuid.UUID(int=chance.getrandbits(128), version=4)).encode() for _ in range(count)]
    if job.keyed:
        return [b"user-%d" % (number * 7919 % KEYS) for number in range(count)]
    return None


def _headers(count: int) -> list[Headers]:
    """As services have them: where the request came from, and what the value is."""
    chance = random.Random(3)
    traces = (b"00-%032x-%016x-01" % (chance.getrandbits(128), chance.getrandbits(64)) for _ in range(count))
    return [[("traceparent", trace), ("content-type", b"application/json")] for trace in traces]


def _events(count: int) -> list[bytes]:
    """Each with a number of its own; what follows it comes again only after more than a batch holds."""
    chance = random.Random(1)
    bodies = [json.dumps(_event(number, chance)).encode()[1:] for number in range(min(count, _BODIES))]
    return [b'{"id": %d, %b' % (number, bodies[number % _BODIES]) for number in range(count)]


def _event(number: int, chance: random.Random) -> dict[str, object]:
    """About 300 bytes, of which gzip leaves 15 %."""
    return {
        "time": f"2026-01-01T{number // 3600 % 24:02}:{number // 60 % 60:02}:{number % 60:02}Z",
        "user": f"user-{chance.randrange(KEYS)}",
        "session": f"{chance.getrandbits(64):016x}",
        "address": ".".join(str(chance.randrange(256)) for _ in range(4)),
        "action": chance.choice(_ACTIONS),
        "path": f"/products/{chance.randrange(1000)}?page={chance.randrange(9)}",
        "referrer": f"https://shop.example/{chance.choice(_ACTIONS)}/{chance.randrange(1000)}",
        "price": round(chance.random() * 100, 2),
        "agent": chance.choice(_AGENTS),
    }
