"""Ctrl-C at the n-th line that the main thread runs, for many n, each in a run of its own.

``python -m tests.programs.interrupt_sweep 1000 thread`` tries 1000 lines with the client in its own thread,
``1000 loop`` with the client in the main thread. Whatever the line: the run ends by KeyboardInterrupt, no
worker is left, and every message that was accepted is in the log, once, or told of.
"""

from __future__ import annotations

import _weakrefset
import faulthandler
import itertools
import logging
import signal
import sys
import weakref
from types import FrameType
from typing import Any

import trio

from tests import cycles
from tests.programs.place import open_producer
from trio_kprod import Producer
from trio_kprod.testing import Broker, open_broker

_numbers = itertools.count()

# Got here: `getLogger` takes a lock of logging's own, and an interrupt in there can leave it taken for ever.
_LOGGER = logging.getLogger("trio_kprod")

_WEAKREF = (weakref.__file__, _weakrefset.__file__)


class Interrupt:
    """A trace function that counts lines and presses Ctrl-C at one of them.

    Three kinds of lines do not count, because an interrupt there breaks what Python or trio itself promises:

    - `_produce`: an interrupt after the last line of the body makes Python skip `__aexit__`, whatever the
      context manager (python/cpython#74174);
    - callbacks of weak references: Python prints what they raise and goes on;
    - `attempt_connect`, and all that it calls: a task of trio's, which Ctrl-C reaches. It makes a socket,
      then notes it. What comes in between leaves the socket to the garbage collector, which warns.
    """

    def __init__(self, line: int) -> None:
        self._line = line
        self.lines = 0
        self.where = ""

    def __call__(self, frame: FrameType, event: str, arg: object) -> Any:
        if frame.f_code is Run._produce.__code__ or frame.f_code.co_filename in _WEAKREF:
            return None
        if event == "line":
            if self.lines + 1 == self._line and _is_connecting(frame):
                return self
            self.lines += 1
            if self.lines == self._line:
                sys.settrace(None)
                self.where = f"{frame.f_code.co_filename}:{frame.f_lineno}"
                signal.raise_signal(signal.SIGINT)
                return None
        return self


def _is_connecting(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_name == "attempt_connect":
            return True
        frame = frame.f_back
    return False


class Run:
    """One run, up to the interrupt and through the end."""

    def __init__(self, broker: Broker, line: int) -> None:
        self.interrupt = Interrupt(line)
        self._broker = broker
        self._topic = f"t{next(_numbers)}"
        self._producer: Producer | None = None

    def go(self) -> None:
        interrupted = False
        try:
            trio.run(self._main)
        except KeyboardInterrupt:
            interrupted = True
        finally:
            sys.settrace(None)
        assert interrupted == bool(self.interrupt.where), self.interrupt.where
        assert not cycles.running_clients(), self.interrupt.where
        if self._producer is not None:
            self._check(self._producer)

    async def _main(self) -> None:
        sys.settrace(self.interrupt)
        # Tracing begins with the next call. The producer lives in one.
        await self._produce()
        sys.settrace(None)

    async def _produce(self) -> None:
        async with open_producer(
            self._broker.bootstrap_servers, delivery_interval=0.001, logger=_LOGGER
        ) as producer:
            self._producer = producer
            producer.send_nowait(self._topic, b"0")
            await producer.send(self._topic, b"1")
            await producer.send_and_wait(self._topic, b"2")
            await producer.send_many(self._topic, [b"3", b"4"])
            await producer.flush()
            producer.send_nowait(self._topic, b"5")

    def _check(self, producer: Producer) -> None:
        now = producer.statistics()
        assert now.accepted == now.delivered + now.undelivered, self.interrupt.where
        assert len(producer.undelivered) == now.undelivered, self.interrupt.where
        numbers = [int(record.value or b"") for record in self._broker.records(self._topic)]
        assert numbers == sorted(set(numbers)), (self.interrupt.where, numbers)
        maybe = sum(one.maybe_written for one in producer.undelivered)
        assert now.delivered <= len(numbers) <= now.delivered + maybe, (self.interrupt.where, numbers, now)


def main(count: int) -> None:
    with open_broker() as broker:
        for _ in range(2):  # the first run imports and connects what later ones do not
            whole = Run(broker, 0)
            whole.go()
        lines = whole.interrupt.lines
        where = set()
        for number in range(count):
            faulthandler.dump_traceback_later(30, exit=True)
            run = Run(broker, 1 + number * lines // count)
            run.go()
            where.add(run.interrupt.where)
    print(f"{count} of {lines} lines, {len(where)} different ones")


if __name__ == "__main__":
    logging.disable()
    main(int(sys.argv[1]))
