"""What became of each message, in one byte, and what the log says of it.

Numbers rise in the order in which a producer is given its messages. A value begins with the message's number,
its producer's and its kind: whether it has a place (a key or a partition), or is free to go anywhere. Of the
same producer and kind, numbers must rise within each partition.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from enum import IntFlag
from typing import Literal, NamedTuple

from trio_kprod import ProducerStatistics, Undelivered

Kind = Literal[b"placed", b"free"]

#: Bytes by which the memory for the messages grows.
_CHUNK = 2**20

_IN_THE_LOG = ("duplicates", "out_of_order", "falsely_told", "never_accepted", "told_twice")

#: How many numbers are told of each problem.
_EXAMPLES = 5


class Fate(IntFlag):
    """What is known of a message. If its call was cancelled, that may leave open whether it was accepted."""

    ACCEPTED = 1
    REFUSED = 2
    UNSURE = 4
    TOLD_UNWRITTEN = 8
    TOLD_MAYBE = 16
    IN_LOG = 32
    FLEETING = 64  # its topic is deleted now and then
    ACKNOWLEDGED = 128

    @property
    def told(self) -> bool:
        return bool(self & (Fate.TOLD_UNWRITTEN | Fate.TOLD_MAYBE))


class Verdict(NamedTuple):
    """What the log says of all messages.

    Attributes:
        sent: those that were accepted for certain.
        lost: were accepted, nobody was told otherwise, and they are not in the log.
        untold: have no outcome, by the count of their producer and of those that were told.
        duplicates: records more than there are messages.
        out_of_order: come behind a later message of the same producer, partition and kind.
        falsely_told: were told as not written, and are in the log.
        never_accepted: are in the log, although the call had raised.
        told_twice: more than one place reported them.
        miscounted: producers whose statistics do not fit what their users saw.
    """

    sent: int = 0
    in_log: int = 0
    told: int = 0
    lost: int = 0
    untold: int = 0
    duplicates: int = 0
    out_of_order: int = 0
    falsely_told: int = 0
    never_accepted: int = 0
    told_twice: int = 0
    miscounted: int = 0

    def wrong(self, acks: str) -> list[str]:
        """What must be 0 and is not. A leader that dies loses what it alone had, and only with ``acks=all``
        is a message that is sent again recognised.
        """
        allowed = () if acks == "all" else ("lost", "duplicates", "out_of_order")
        return [name for name in self._fields[3:] if getattr(self, name) and name not in allowed]

    def __str__(self) -> str:
        return ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in self._asdict().items())


@dataclass
class Account:
    """What users of one producer saw."""

    accepted: int = 0
    unsure: int = 0
    told: int = 0


@dataclass
class Ledger:
    """All messages of a run. May be told of messages in any thread.

    Attributes:
        examples: some messages of each problem.
    """

    examples: dict[str, list[int]] = field(default_factory=lambda: defaultdict(list))
    accounts: dict[int, Account] = field(default_factory=lambda: defaultdict(Account))
    _fates: bytearray = field(default_factory=bytearray)
    _count: int = 0
    _found: Counter[str] = field(default_factory=Counter)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def __len__(self) -> int:
        return self._count

    @property
    def size(self) -> int:
        """Bytes of memory that it takes for the messages."""
        return len(self._fates)

    # -- what users see

    def begin(self, *, fleeting: bool = False) -> int:
        """The number of the next message, before it is given to a producer."""
        number = self._count
        self._count += 1
        if self._count > len(self._fates):
            self._fates.extend(bytes(_CHUNK))
        if fleeting:
            self._fates[number] |= Fate.FLEETING
        return number

    def accept(self, number: int, producer: int) -> None:
        """The call has returned."""
        self._fates[number] |= Fate.ACCEPTED
        self.accounts[producer].accepted += 1

    def acknowledge(self, number: int) -> None:
        """Its user was told that it is in the log."""
        self._fates[number] |= Fate.ACKNOWLEDGED

    def refuse(self, number: int) -> None:
        """The call has raised, and nothing was queued."""
        self._fates[number] |= Fate.REFUSED

    def unsure(self, number: int, producer: int) -> None:
        """The call was cancelled, perhaps after the message was accepted."""
        self._fates[number] |= Fate.UNSURE
        self.accounts[producer].unsure += 1

    def tell(self, one: Undelivered) -> None:
        """Its user was told that it was not delivered."""
        number, producer, _ = read_value(one.message.value)
        with self._lock:
            if Fate(self._fates[number]).told:
                self._note("told_twice", number)
                return
            self._fates[number] |= _told(one)
            self.accounts[producer].told += 1

    def tell_again(self, one: Undelivered) -> None:
        """The same, by a receipt: it says once more what others were told before, and must not say else."""
        number, _, _ = read_value(one.message.value)
        fate = Fate(self._fates[number])
        if not fate.told or not fate & _told(one):
            self.tell(one)

    def close(self, producer: int, now: ProducerStatistics) -> None:
        """The producer's block was left with these statistics: do they fit?"""
        account = self.accounts.pop(producer, None) or Account()
        self._found["untold"] += abs(now.accepted - now.delivered - account.told)
        fits = account.accepted <= now.accepted <= account.accepted + account.unsure
        if not fits or now.undelivered != account.told or now.queued or now.waiting or now.in_flight:
            self._note("miscounted", producer)

    # -- what is in the log

    def read(self, log: Iterable[tuple[int, bytes]]) -> None:
        """Look at the partition and the value of each record of a topic, in the order of each partition."""
        last: dict[tuple[int, int, bytes], int] = {}
        for partition, value in log:
            number, producer, kind = read_value(value)
            if number >= self._count:
                self._note("never_accepted", number)
                continue
            fate = Fate(self._fates[number])
            self._found["in_log"] += 1
            self._fates[number] |= Fate.IN_LOG
            self._look(number, fate)
            # What may have been written may come late.
            if not fate & (Fate.IN_LOG | Fate.TOLD_MAYBE | Fate.UNSURE):
                line = partition, producer, kind
                if number < last.get(line, -1):
                    self._note("out_of_order", number)
                else:
                    last[line] = number

    def _look(self, number: int, fate: Fate) -> None:
        if fate & Fate.IN_LOG:
            self._note("duplicates", number)
        if fate & Fate.TOLD_UNWRITTEN:
            self._note("falsely_told", number)
        if not fate & (Fate.ACCEPTED | Fate.UNSURE):
            self._note("never_accepted", number)

    def verdict(self) -> Verdict:
        """After all topics were read."""
        fates = Counter(memoryview(self._fates)[: self._count])
        every = [(Fate(fate), count) for fate, count in fates.items()]
        lost = {int(fate): count for fate, count in every if _is_lost(fate)}
        for number in self._first(lost):
            self.examples["lost"].append(number)
        return Verdict(
            sent=sum(count for fate, count in every if fate & Fate.ACCEPTED),
            told=sum(count for fate, count in every if fate.told),
            lost=sum(lost.values()),
            miscounted=self._found["miscounted"] + len(self.accounts),  # those whose end nobody saw
            **{name: self._found[name] for name in ("in_log", "untold", *_IN_THE_LOG)},
        )

    def _first(self, lost: Iterable[int]) -> Iterator[int]:
        for fate in lost:
            number = -1
            for _ in range(_EXAMPLES):
                number = self._fates.find(fate, number + 1, self._count)
                if number < 0:
                    break
                yield number

    def _note(self, problem: str, number: int) -> None:
        self._found[problem] += 1
        if len(self.examples[problem]) < _EXAMPLES:
            self.examples[problem].append(number)


def _told(one: Undelivered) -> Fate:
    return Fate.TOLD_MAYBE if one.maybe_written else Fate.TOLD_UNWRITTEN


def _is_lost(fate: Fate) -> bool:
    expected = fate & (Fate.ACCEPTED | Fate.ACKNOWLEDGED) and not fate & Fate.FLEETING
    return bool(expected and not fate.told and not fate & Fate.IN_LOG)


def make_value(number: int, producer: int, kind: Kind, size: int = 0) -> bytes:
    """The value of a message, of at least `size` bytes."""
    return (b"%d %d %s " % (number, producer, kind)).ljust(size, b"x")


def read_value(value: bytes | None) -> tuple[int, int, bytes]:
    """Number, producer and kind."""
    number, producer, kind, _ = (value or b"")[:64].split(b" ", 3)
    return int(number), int(producer), kind
