"""What was accepted, what was told undelivered, and what is in the log: whether all three agree.

Every test against a real Kafka ends with `History.check`.
"""

from __future__ import annotations

import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import asynccontextmanager
from typing import Any, Literal, NamedTuple

import trio

import trio_kprod
from tests.kafka.cluster import PATIENCE, Kafka, Record, wait_until

Acks = Literal[0, 1, "all"]

#: What may go wrong with ``acks`` of 0 or 1, and only there.
MayBe = Literal["lost", "duplicates", "out_of_order"]


class Verdict(NamedTuple):
    """How many messages of a topic fared how.

    `told` were told undelivered. `lost` are not in the log, and were not told. `untold` have no outcome, of
    whichever topic: neither did their producer count them as delivered, nor was the history told of them.
    `duplicates` are in the log again. `out_of_order` come in the log after one that the same producer
    accepted later, in the same partition and both with a key or partition of their own or both without.
    """

    sent: int
    in_log: int
    told: int
    lost: int
    untold: int
    duplicates: int
    out_of_order: int

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {count}" for name, count in self._asdict().items())


class _Sent(NamedTuple):
    """An accepted message: its topic, and who must keep it in order with which others."""

    topic: str
    line: tuple[int, bool]


def number_of(value: bytes | None) -> int:
    """Which message this is, by its value."""
    return int((value or b"")[:20].partition(b".")[0])


def _value(number: int, size: int) -> bytes:
    """Of at least `size` bytes."""
    return (b"%d" % number).ljust(size, b".")


def _seconds(times: Collection[float]) -> str:
    return " ".join(f"{one:.1f}" for one in times) + " s" if times else "-"


class History:
    """The numbered messages of one test, through any number of producers and to any number of topics.

    Args:
        name (str): the scenario's, for the line that `check` prints.
    """

    def __init__(self, name: str = "") -> None:
        self._name = name
        self._number = 0
        self._sent: dict[int, _Sent] = {}
        self._told: dict[int, trio_kprod.Undelivered] = {}
        self._producers: list[trio_kprod.Producer] = []
        self._excused: dict[str, int] = {}
        self._recovered: list[float] = []
        self._left: list[float] = []

    @property
    def sent(self) -> int:
        """How many messages were accepted so far."""
        return len(self._sent)

    @property
    def told(self) -> list[trio_kprod.Undelivered]:
        """All that the history was told of."""
        return list(self._told.values())

    @property
    def left(self) -> list[float]:
        """How many seconds leaving each producer of `open_producer` took."""
        return self._left

    @asynccontextmanager
    async def open_producer(
        self, bootstrap_servers: str, **settings: Any
    ) -> AsyncIterator[trio_kprod.Producer]:
        """A producer that tells the history of what it does not deliver; notes how long leaving it takes."""
        async with trio_kprod.open_producer(
            bootstrap_servers, on_undelivered=self.note, **settings
        ) as producer:
            yield producer
            leaving = trio.current_time()
        self._left.append(trio.current_time() - leaving)

    async def send(
        self,
        producer: trio_kprod.Producer,
        topic: str,
        key: bytes | None = None,
        *,
        size: int = 0,
        **options: Any,
    ) -> int:
        """Send the next message, of at least `size` bytes; return its number."""
        self._number += 1
        number = self._number
        await producer.send(topic, _value(number, size), key=key, **options)
        self._remember(number, producer, topic, key is None and options.get("partition") is None)
        return number

    async def gets_through(
        self, producer: trio_kprod.Producer, topic: str, partitions: Iterable[int | None] = (None,)
    ) -> None:
        """Wait until a message to each of `partitions`, sent now, is delivered and all before are settled.

        If one of them is told undelivered, others are sent. With ``acks=0`` "delivered" is what has been
        written to a connection.
        """
        with trio.fail_after(PATIENCE):
            missing = True
            while missing:
                sent = [await self.send(producer, topic, partition=one) for one in partitions]
                try:
                    await producer.flush()
                except trio_kprod.DeliveryFailed as error:
                    self.undelivered(error.undelivered)
                missing = not self._told.keys().isdisjoint(sent)

    async def recovers(
        self,
        producer: trio_kprod.Producer,
        topic: str,
        partitions: Iterable[int | None] = (None,),
        *,
        since: float | None = None,
    ) -> None:
        """As `gets_through`; notes how long that was after `since`, which is now if it is None."""
        start = trio.current_time() if since is None else since
        await self.gets_through(producer, topic, partitions)
        self._recovered.append(trio.current_time() - start)

    def undelivered(self, told: Iterable[trio_kprod.Undelivered]) -> None:
        """Note what was told, by `DeliveryFailed.undelivered` for example."""
        for one in told:
            self.note(one)

    def note(self, told: trio_kprod.Undelivered) -> None:
        """Note one that was told; made to be a producer's `on_undelivered`."""
        self._told[number_of(told.message.value)] = told

    def excuse_loss(self, topic: str) -> None:
        """Whatever was sent to the topic so far may be gone: it was deleted, or its log was cut."""
        self._excused[topic] = self._number

    def check(self, kafka: Kafka, topic: str, acks: Acks = "all", may_be: Collection[MayBe] = ()) -> Verdict:
        """Read the topic back and assert that nothing was lost, doubled, moved or told falsely.

        Args:
            kafka: where to read.
            topic (str): what to read.
            acks: that of the producers.
            may_be: what may have happened; with ``acks`` of "all" nothing may.
        """
        assert acks != "all" or not may_be, "with acks='all' nothing may go wrong"
        expected = sum(self._must_be_in(number, topic) for number in self._sent)
        if not may_be:
            # With acks=0, and with acks=1 where a follower is behind, it may become readable a little later.
            with contextlib.suppress(TimeoutError):
                wait_until(lambda: sum(kafka.end_offsets(topic).values()) >= expected, "the log is complete")
        verdict = self.judge(topic, kafka.read(topic), may_be)
        print(f"{self._name or topic}, acks={acks}: {verdict}; {self._times(acks)}")
        return verdict

    def judge(self, topic: str, records: Iterable[Record], may_be: Collection[MayBe] = ()) -> Verdict:
        """What `check` does, with the log at hand."""
        log = [(number_of(record.value), record.partition) for record in records]
        written = {number for number, _ in log}
        of_topic = {number for number, sent in self._sent.items() if sent.topic == topic}
        missing = {number for number in of_topic - written if self._must_be_in(number, topic)}
        verdict = Verdict(
            sent=len(of_topic),
            in_log=len(log),
            told=len(of_topic & self._told.keys()),
            lost=len(missing),
            untold=self._untold(),
            duplicates=len(log) - len(written),
            out_of_order=self._out_of_order(log),
        )
        self._assert_nothing_false(of_topic, written)
        wrong = {"lost", "untold", "duplicates", "out_of_order"} - set(may_be)
        assert not any(getattr(verdict, name) for name in wrong), f"{verdict}; missing {sorted(missing)[:5]}"
        return verdict

    def _assert_nothing_false(self, of_topic: set[int], written: set[int]) -> None:
        falsely = {one for one in self._told.keys() & written if not self._told[one].maybe_written}
        assert not falsely, f"told as not written, and in the log: {sorted(falsely)[:5]}"
        assert written <= of_topic, f"in the log, and never accepted: {sorted(written - of_topic)[:5]}"

    def _times(self, acks: Acks) -> str:
        """With ``acks=0`` nobody says when messages arrive again."""
        recovered = self._recovered if acks != 0 else []
        return f"recovered after {_seconds(recovered)}, left in {_seconds(self._left)}"

    def _remember(self, number: int, producer: trio_kprod.Producer, topic: str, anywhere: bool) -> None:
        if producer not in self._producers:
            self._producers.append(producer)
        self._sent[number] = _Sent(topic, (self._producers.index(producer), anywhere))

    def _must_be_in(self, number: int, topic: str) -> bool:
        return (
            self._sent[number].topic == topic
            and number not in self._told
            and number > self._excused.get(topic, 0)
        )

    def _untold(self) -> int:
        now = [producer.statistics() for producer in self._producers]
        return sum(one.accepted - one.delivered for one in now) - len(self._told)

    def _out_of_order(self, log: Iterable[tuple[int, int]]) -> int:
        """How many come behind a later one; a duplicate is not counted here."""
        last: dict[tuple[int, tuple[int, bool]], int] = defaultdict(int)
        seen: set[int] = set()
        moved = 0
        for number, partition in log:
            if number in seen or number not in self._sent:
                continue
            seen.add(number)
            line = (partition, self._sent[number].line)
            moved += number < last[line]
            last[line] = max(last[line], number)
        return moved
