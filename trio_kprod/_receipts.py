"""Receipts: the outcome of one message, for any task that asks.

A message is *tracked* from the send that makes its receipt to its outcome. If a task waits for the receipt,
that receipt tells of a failure. If none does, a task may still ask the receipt later: `_telling` keeps the
failure, and the receipt takes it back from there, unless somebody else was told before. Nothing depends on
whether anybody still holds a receipt: that would depend on the garbage collector.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from typing import TYPE_CHECKING, Any

import trio

from ._errors import DeliveryFailed
from ._messages import RecordMetadata, Undelivered
from ._waiting import Wait

if TYPE_CHECKING:
    from ._telling import Failure, Teller


class Receipt:
    """What becomes of one message; made by `Producer.send_tracked_nowait` and `Producer.send_tracked`.

    ``await receipt`` asks for delivery, waits until the message has its outcome, and returns its
    `RecordMetadata` or raises `DeliveryFailed`. Any number of tasks may await it, any number of times, also
    after the block; all get the same outcome. It is always a checkpoint, and cancelling it changes nothing.

    You need not look at a receipt. If no task asks it, the next `flush` or the end of the block tells of a
    failure. They do not tell again of a failure that a receipt has told of.

    Raises:
        DeliveryFailed: the message was not delivered; `DeliveryFailed.undelivered` has this one only.
        ProducerCrashed: a bug in here; nothing is known of the message.
        RuntimeError: awaited before there is an outcome, in another trio run than that of the producer.
    """

    __slots__ = ("_kept", "_outcome", "_tracking", "_waits")

    def __init__(self, tracking: Tracking) -> None:
        self._tracking = tracking
        self._outcome: RecordMetadata | Undelivered | Callable[[], Exception] | None = None
        self._kept: Failure | None = None  # the failure that others tell of, unless this one does before
        self._waits: dict[Wait, None] | None = None

    @property
    def done(self) -> bool:
        """Whether the message has its outcome, so that `result` returns or raises it."""
        return self._outcome is not None

    @trio.lowlevel.enable_ki_protection
    def result(self) -> RecordMetadata:
        """The outcome, without waiting. May be called again, and after the block.

        Raises:
            DeliveryFailed, ProducerCrashed: as ``await receipt``.
            trio.WouldBlock: there is no outcome yet. It does not ask for delivery.
        """
        outcome = self._outcome
        if isinstance(outcome, RecordMetadata):
            return outcome
        if outcome is None:
            raise trio.WouldBlock("the message has no outcome yet: await the receipt, or see if it is `done`")
        if not isinstance(outcome, Undelivered):
            raise outcome()
        if self._kept is not None:
            self._tracking.take_back(self._kept)
            self._kept = None
        raise DeliveryFailed([outcome])

    def __await__(self) -> Generator[Any, Any, RecordMetadata]:
        return self._await().__await__()

    async def _await(self) -> RecordMetadata:
        await trio.lowlevel.checkpoint_if_cancelled()
        return await self._wait()

    @trio.lowlevel.enable_ki_protection
    async def _wait(self, withdraw: Callable[[], object] = lambda: None) -> RecordMetadata:
        """If it is cancelled, `withdraw` is called at once, while no outcome can come."""
        if self._outcome is not None:
            await trio.lowlevel.cancel_shielded_checkpoint()
            return self.result()
        waits = self._waits = self._waits or {}
        wait = Wait()
        waits[wait] = None

        def give_up() -> None:
            del waits[wait]
            withdraw()

        try:
            self._tracking.ask()  # the outcome may come at once
        except BaseException:
            give_up()
            raise
        await wait.wait(give_up)
        return self.result()

    def _settle(self, outcome: RecordMetadata | Undelivered | Callable[[], Exception]) -> bool:
        """Set the outcome, and wake the tasks that wait for it. Returns whether there were any."""
        self._outcome = outcome
        waits, self._waits = self._waits, None
        for wait in waits or ():
            wait.end()
        return bool(waits)

    def __repr__(self) -> str:
        outcome = self._outcome
        if outcome is None:
            state = "no outcome yet"
        elif isinstance(outcome, RecordMetadata):
            state = f"delivered to {outcome.topic!r}, partition {outcome.partition}, offset {outcome.offset}"
        elif isinstance(outcome, Undelivered):
            state = f"not delivered: {outcome.cause}"
        else:
            state = "the producer crashed"
        return f"<trio_kprod.Receipt: {state}>"


class Tracking:
    """The messages that have a receipt and no outcome yet, by their tickets.

    Attributes:
        ask: asks for delivery; raises if this is not the loop of the producer.
    """

    def __init__(self, teller: Teller) -> None:
        self.ask: Callable[[], object] = lambda: None
        self._teller = teller
        self._receipts: dict[int | None, Receipt] = {}

    def __bool__(self) -> bool:
        return bool(self._receipts)

    def begin(self, ticket: int) -> Receipt:
        receipt = self._receipts[ticket] = Receipt(self)
        return receipt

    def forget(self, ticket: int) -> None:
        """From now on the message, if it is accepted, has no receipt."""
        self._receipts.pop(ticket, None)

    def delivered(self, tickets: Iterable[int | None], metadata: Callable[[int], RecordMetadata]) -> None:
        """`metadata` is called with the index of each message that has a receipt."""
        end = self._receipts.pop
        for index, ticket in enumerate(tickets):
            receipt = end(ticket, None)
            if receipt is not None:
                receipt._settle(metadata(index))

    def failed(self, ticket: int | None, undelivered: Undelivered, position: int) -> None:
        """A message, with or without a receipt, has failed: see to it that exactly one tells of it."""
        receipt = self._receipts.pop(ticket, None)
        if receipt is None:
            self._teller.tell(undelivered, position)
        elif not receipt._settle(undelivered):
            receipt._kept = self._teller.tell(undelivered, position, tracked=True)

    def take_back(self, failure: Failure) -> None:
        self._teller.take_back(failure)

    def crashed(self, refused: Callable[[], Exception]) -> None:
        """Nothing will be settled any more."""
        receipts = list(self._receipts.values())
        self._receipts.clear()
        for receipt in receipts:
            receipt._settle(refused)
