"""The fields that a send looks at and moves, in base classes of the objects that they belong to.

Python reads and writes them like any others. Where the compiled parts are in use, their types of the same
names take the place of these classes, so that C reads and writes the very same fields.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ._speedups import compiled


class RoomCounters:
    """The fields of `Room`.

    Attributes:
        bound (int): accept a message only if no more than this many are queued then.
        max_bytes (int): the most that all unsettled messages may hold.
        tasks_waiting (int): how many tasks wait for room.
        unsettled_bytes (int): what the accepted and not yet settled messages hold.
        wake_at (float): call `wake` when this many messages are queued.
    """

    __slots__ = ("bound", "max_bytes", "tasks_waiting", "unsettled_bytes", "wake_at")

    bound: int
    max_bytes: int
    tasks_waiting: int
    unsettled_bytes: int
    wake_at: float


class TopicCounters:
    """The fields of `TopicAccount`.

    Attributes:
        limited (bool): no message of it was acknowledged yet, or it is stalled.
        max_message_size (int): the largest that fits into a request.
        name (str): the topic's.
        unsettled (int): how many of its accepted messages are not settled.
        unsettled_bytes (int): what those hold.
    """

    __slots__ = ("limited", "max_message_size", "name", "unsettled", "unsettled_bytes")

    limited: bool
    max_message_size: int
    name: str
    unsettled: int
    unsettled_bytes: int


class IntakeCounters:
    """The fields of `Intake`.

    Attributes:
        millisecond (int): the time since 1970 with which messages are stamped now.
        millisecond_ends (float): until when, on the client's clock.
    """

    __slots__ = ("millisecond", "millisecond_ends")

    millisecond: int
    millisecond_ends: float


class LedgerCounters:
    """The fields of `Ledger`.

    Attributes:
        run (int): the start of the open run, to which new messages belong. None of it is submitted yet.
    """

    __slots__ = ("run",)

    run: int


IN_PYTHON = (RoomCounters, TopicCounters, IntakeCounters, LedgerCounters)

if compiled is not None and not TYPE_CHECKING:
    RoomCounters, TopicCounters, IntakeCounters, LedgerCounters = (
        getattr(compiled, each.__name__) for each in IN_PYTHON
    )
