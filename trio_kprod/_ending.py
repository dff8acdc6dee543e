"""How a producer ends: whether it accepts messages, why not, and why messages are given up."""

from __future__ import annotations

import enum
from collections.abc import Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio

from ._errors import ProducerClosed, ProducerCrashed

if TYPE_CHECKING:
    from ._room import Room, TopicAccount


class Phase(enum.Enum):
    """A producer goes through these in order, and may skip one."""

    OPEN = enum.auto()  # accepts messages
    DRAINING = enum.auto()  # delivers what it has; only `on_undelivered` may still send
    STOPPING = enum.auto()  # gives up what it has, and accepts nothing


class Ending:
    """The phase of a producer, and the reasons that it gives.

    Attributes:
        refusal: None while messages are accepted, else what to raise instead, as (class, text).
        crash: what a background task failed with, if one did.
        reason (str): why messages are given up, if they are.
        over (trio.Event): set when leaving the scope need not wait any longer: everything is settled and
            nothing more can come, or something has crashed, or the time is up.
        stopping (trio.Event): set when the client has to be stopped; nothing is submitted any more.
    """

    def __init__(self, room: Room, topics: dict[str, TopicAccount]) -> None:
        self.phase: Phase = Phase.OPEN
        self.refusal: tuple[type[Exception], str] | None = None
        self.crash: BaseException | None = None
        self.reason: str = ""
        self.over: trio.Event = trio.Event()
        self.stopping: trio.Event = trio.Event()
        self._room = room
        self._topics = topics

    def refused(self) -> Exception:
        """A new exception that says why nothing is accepted."""
        assert self.refusal is not None
        kind, text = self.refusal
        error = kind(text)
        error.__cause__ = self.crash
        return error

    def drain(self) -> None:
        """Accept nothing more, but deliver what there is."""
        if self.phase is Phase.OPEN:
            self.phase = Phase.DRAINING
            self._refuse(ProducerClosed, "the producer's scope is being left, or was left")

    def abort(self) -> None:
        self.stop("abort() was called")
        self._refuse(ProducerClosed, "abort() was called")

    def give_up_because(self, reason: str) -> None:
        """Why messages are given up from now on; the first reason stays."""
        self.reason = self.reason or reason

    def stop(self, reason: str) -> None:
        """Give up what is not settled."""
        self.give_up_because(reason)
        self.phase = Phase.STOPPING
        self.stopping.set()

    def fail(self, error: BaseException) -> None:
        """A background task failed. This replaces what was refused before."""
        self.crash = error
        self.refusal = None
        self.stop("the producer crashed")
        self._refuse(ProducerCrashed, f"a background task of the producer failed: {error!r}")
        self.over.set()

    def _refuse(self, error: type[Exception], text: str) -> None:
        """The first refusal stays. Tasks that wait for room, or for a topic's partitions, get it at once."""
        if self.refusal is None:
            self.refusal = (error, text)
        self._room.close(self.refused)
        for topic in self._topics.values():
            topic.answer(self.refused)

    @contextmanager
    def callback(self) -> Generator[None, None, None]:
        """While `on_undelivered` runs, also a draining producer accepts messages, unless it is done."""
        if self.phase is not Phase.DRAINING or self.over.is_set():
            yield
            return
        refusal, self.refusal = self.refusal, None
        self._room.reopen()
        try:
            yield
        finally:
            if self.phase is Phase.DRAINING:  # the callback did not abort
                self.refusal = refusal
                self._room.close(self.refused)
