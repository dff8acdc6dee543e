"""Random inputs, right ones and wrong ones, for every function in C: it may raise, but never crash.

``python random_inputs.py 10_000_000`` tries ten million: entries in batches, and sends. What is right has to
come out as the Python has it. `sanitize` runs it so that a wrong access to memory ends the program.
"""

from __future__ import annotations

import sys
from collections import Counter, deque
from math import inf, nan
from random import Random
from typing import Any

from trio_kprod_speedups import (
    IntakeCounters,
    LedgerCounters,
    RoomCounters,
    Sender,
    TopicCounters,
    encode_records,
    murmur2,
)

from trio_kprod._core._partitioners import murmur2 as murmur2_in_python
from trio_kprod._core._records import encode_in_python
from trio_kprod._messages import BATCH_OVERHEAD


class Text(str):
    """Not just a str."""

    __slots__ = ()


_SIZES = (0, 1, 2, 63, 64, 100, 300, 8191, 8192, 20_000)
_BYTES = [None, *map(bytes, _SIZES), b"value" * 20, b"key"]
_NUMBERS = [0, 1, 5, 2**31 - 1, 1_700_000_000_000, 2**62, 2**63 - 1]
_NAMES = ["", "h", "traceparent", "é€\U0001f600", "n" * 300]
_HEADERS = [(), (("h", b"v"),), (("a", None), ("é€\U0001f600", bytes(300)), ("", b"")), (("x", b"y"),) * 40]
_PAIRS: list[Any] = [
    ("h", "v"), (b"h", b"v"), (None, b""), ("\ud800", b"v"), (Text("h"), b"v"), ("h",), ["h", b"v"], None,
]  # fmt: skip
_NONSENSE: list[Any] = [
    *(None, True, -1, 2**63, -(2**70), 1.5, nan, "text", "\ud800", Text("t"), b"b", bytearray(b"a")),
    *([], (), {}, object(), (1, 2), ("h", b"v"), [("h", b"v")], {"h": b"v"}, memoryview(b"m"), iter(())),
    *((pair,) for pair in _PAIRS),
    *([("h", b"v"), pair] for pair in _PAIRS),
]


class Entries:
    """Batches for the encoder."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def try_one(self) -> tuple[int, str]:
        """How many inputs that were, and what became of them."""
        choice, chance = self._random.choice, self._random.random
        entries = [self._entry() for _ in range(choice((1, 1, 2, 3, 10, 100, 400)))]
        spoilt = chance() < 0.3
        if spoilt:
            entries[self._random.randrange(len(entries))] = self._wrong_entry()
        given = choice((list, tuple, iter))(entries) if chance() < 0.9 else deque(entries)
        try:
            found = encode_records(given, BATCH_OVERHEAD)
        except (TypeError, ValueError, OverflowError) as error:
            if not spoilt:
                raise
            return len(entries), type(error).__name__
        if not spoilt:
            assert found == encode_in_python(entries, lambda: None)
        return len(entries), "encoded"

    def _entry(self) -> tuple[Any, ...]:
        choice = self._random.choice
        value, key = choice(_BYTES), choice(_BYTES[:4])
        if value is None and key is None:
            value = b""
        return ("t", value, key, choice(_HEADERS), None, choice(_NUMBERS), 0, 0.0, None, 0)

    def _wrong_entry(self) -> Any:
        entry: list[Any] = list(self._entry())
        kind = self._random.randrange(4)
        if kind == 0:
            return self._random.choice(_NONSENSE)
        if kind == 1:
            entry[self._random.randrange(10)] = self._random.choice(_NONSENSE)
        elif kind == 2:
            del entry[self._random.randrange(10)]
        else:
            return entry
        return tuple(entry)


class Room(RoomCounters): ...


class Topic(TopicCounters): ...


class Intake(IntakeCounters): ...


class Ledger(LedgerCounters): ...


class Sends:
    """Sends, while the counters and what a clock returns change."""

    def __init__(self, random: Random) -> None:
        self._random = random
        self._now: Any = 0.0
        self._token: object = None
        self._room, self._intake, self._ledger = Room(), Intake(), Ledger()
        self._topics: dict[Any, Any] = {"other": None, "empty": Topic()}
        self._queue: deque[Any] = deque()
        self._sender = Sender(
            room=self._room, intake=self._intake, ledger=self._ledger, topics=self._topics, queue=self._queue,
            clock=lambda: self._now, read_wall_clock=self._read,
            token=None, current_token=lambda: self._token,
            send_nowait=self._in_python, offer=self._in_python, accept_item=self._in_python,
        )  # fmt: skip
        self.change()

    def _read(self, now: float) -> int:
        self._intake.millisecond_ends = now + self._mostly(0.001, 0.0)
        return 0

    def _in_python(self, *_: Any, **__: Any) -> str:
        return "left to Python"

    def change(self) -> None:
        """Anything may be different from now on, but mostly one thing is."""
        room, topic = self._room, Topic()
        self._queue.clear()
        room.bound = self._mostly(10**9, -1, 0, 1, 10)
        room.max_bytes = self._mostly(sys.maxsize, 0, 1000)
        room.tasks_waiting = self._mostly(0, 1)
        room.unsettled_bytes = self._mostly(0, 900, sys.maxsize)
        room.wake_at = self._mostly(inf, 0, 5, nan)
        topic.unsettled = topic.unsettled_bytes = self._mostly(0, 7, 2**70)
        topic.max_message_size = self._mostly(sys.maxsize, 50, 10_000)
        if self._mostly(True, False):
            topic.name = "topic"
            topic.limited = self._mostly(False, True)
            self._intake.millisecond = 1_700_000_000_000
            self._ledger.run = 7
        self._topics["topic"] = topic
        self._intake.millisecond_ends = self._mostly(1.0, -1.0, nan)
        self._now = self._mostly(0.0, 0, -1.0, 2.0, None, "noon", self._queue)
        self._token = self._mostly(None, 5)

    def _mostly(self, usual: Any, *others: Any) -> Any:
        return usual if self._random.random() < 0.95 else self._random.choice(others)

    def try_one(self) -> tuple[int, str]:
        before = len(self._queue)
        try:
            kind = self._random.random()
            if kind < 0.6:
                told = self._sender.send_nowait(*self._arguments(), **self._keywords())
            elif kind < 0.8:
                told = self._sender.offer(*self._arguments(), *self._rest())
                if isinstance(told, tuple):
                    told = told[3:] or None
            else:
                told = self._sender.accept_item(*self._arguments()[:1], self._item())
        except TypeError:
            if isinstance(self._now, float):
                raise
            return 1, "a clock that is none"
        assert len(self._queue) == before + (told is None)
        assert told is not None or len(self._queue[-1]) == 10
        return 1, told or "queued"

    def _arguments(self) -> tuple[Any, ...]:
        if self._random.random() < 0.1:
            return tuple(self._random.choices(_NONSENSE, k=self._random.randrange(4)))
        return self._random.choice(("topic", "topic", "topic", "other", "empty", "new")), self._bytes()

    def _bytes(self) -> Any:
        return self._random.choice(_NONSENSE if self._random.random() < 0.02 else _BYTES)

    def _keywords(self) -> dict[str, Any]:
        choice, chance = self._random.choice, self._random.random
        keywords: dict[str, Any] = {}
        for name, right in (("key", _BYTES), ("headers", [None, *_HEADERS]), ("partition", _NUMBERS[:4])):
            if chance() < 0.3:
                keywords[name] = choice(right if chance() < 0.9 else _NONSENSE)
        if chance() < 0.2:
            keywords[choice(("timestamp_ms", "value", "nonsense"))] = choice(_NUMBERS + _NONSENSE)
        return keywords

    def _rest(self) -> list[Any]:
        """Of the arguments of an offer."""
        choice, chance = self._random.choice, self._random.random
        right = (_BYTES, [None, *_HEADERS], [None, *_NUMBERS[:4]], [None, *_NUMBERS], [None, 7, 2**70])
        return [choice(one if chance() < 0.97 else _NONSENSE) for one in right[: choice((5, 4, 4, 3))]]

    def _item(self) -> Any:
        value, key = self._bytes(), self._bytes()
        return self._random.choice((value, (key, value), [key, value], (value,), (key, value, key)))


class Keys:
    """Keys to hash."""

    def __init__(self, random: Random) -> None:
        self._random = random

    def try_one(self) -> tuple[int, str]:
        key: Any = self._random.randbytes(self._random.randrange(300))
        if self._random.random() < 0.1:
            key = self._random.choice(_NONSENSE)
        try:
            found = murmur2(key)
        except TypeError as error:
            assert not isinstance(key, bytes)
            return 1, type(error).__name__
        assert found == murmur2_in_python(key)
        return 1, "hashed"


def main(count: int, seed: int) -> None:
    random = Random(seed)
    entries, sends, keys = Entries(random), Sends(random), Keys(random)
    became: Counter[str] = Counter()
    done = 0
    while done < count:
        sends.change()
        for _ in range(50):
            inputs, what = sends.try_one()
            became[what] += inputs
            done += inputs
        for one in (entries, keys):
            inputs, what = one.try_one()
            became[what] += inputs
            done += inputs
    print(f"{done} inputs from seed {seed}, and no crash: {dict(became.most_common())}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]) if len(sys.argv) > 2 else 0)
