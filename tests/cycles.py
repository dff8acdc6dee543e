"""Opens and closes producers again and again, and looks for what they leave behind.

``python -m tests.cycles --cycles 1000 --dead 100`` does it in a process of its own and measures memory too.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import logging
import os
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import CodeType, FrameType
from typing import NamedTuple

import trio

import trio_kprod
from trio_kprod._client._host import run_loop
from trio_kprod.testing import Broker, open_broker

if sys.platform != "win32":
    import resource

#: Says nothing: whoever collects what is logged, as pytest does, holds errors with all that they lead to.
SILENT = logging.getLogger("trio_kprod.cycles")
SILENT.disabled = True

WARM_UP = 300
STRETCH = 100
GROWTH_ALLOWED = 1024 * 1024


class Left(NamedTuple):
    """What is there when no producer is."""

    threads: int
    clients: int
    descriptors: tuple[str, ...]
    tasks: int
    objects: Counter[str]


def left() -> Left:
    """What is there now."""
    gc.collect()
    return Left(
        busy_threads(),
        running_clients(),
        descriptors(),
        trio.lowlevel.current_statistics().tasks_living,
        Counter(type(one).__qualname__ for one in gc.get_objects() if _is_ours(one)),
    )


def busy_threads() -> int:
    """How many threads there are, but for the idle ones that trio keeps for the next call."""
    return sum(not _is_idle(frame) for frame in sys._current_frames().values())


def running_clients() -> int:
    """How many threads run a client, also those that nobody waits for any more."""
    return sum(run_loop.__code__ in _codes(frame) for frame in sys._current_frames().values())


def _is_idle(frame: FrameType) -> bool:
    functions = [code.co_name for code in _codes(frame) if "trio" in code.co_filename]
    return "_work" in functions and "worker_fn" not in functions


def _codes(frame: FrameType | None) -> Iterator[CodeType]:
    while frame is not None:
        yield frame.f_code
        frame = frame.f_back


def descriptors() -> tuple[str, ...]:
    """What is open, by kind: numbers of descriptors and sockets are used again."""
    kinds = []
    for number in os.listdir("/proc/self/fd"):
        try:
            kinds.append(os.readlink(f"/proc/self/fd/{number}").partition(":")[0])
        except FileNotFoundError:  # that of the listing itself
            continue
    return tuple(sorted(kinds))


@contextmanager
def no_more_descriptors() -> Iterator[None]:
    """What is open stays so; what is closed cannot be opened again. (Not on Windows.)"""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (3, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def _is_ours(one: object) -> bool:
    module = str(type(one).__module__)  # a class of another package may have something else there
    return module.startswith("trio_kprod") and not module.startswith("trio_kprod.testing")


def resident_bytes() -> int:
    """The memory that the process has now, as the system counts it, without what it has freed."""
    gc.collect()
    libc = ctypes.CDLL(None)
    if hasattr(libc, "malloc_trim"):
        libc.malloc_trim(0)
    with open("/proc/self/statm", encoding="ascii") as numbers:
        return int(numbers.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


async def cycle(broker: Broker, count: int, *, own_thread: bool, dead: bool = False) -> None:
    """Open and close `count` producers, one after the other; the broker may die after each has opened.

    Does not return before every thread has ended that a producer started.
    """
    before = busy_threads()
    for _ in range(count):
        if dead:
            await _with_a_broker_that_dies(broker, own_thread)
        else:
            async with trio_kprod.open_producer(
                broker.bootstrap_servers, own_thread=own_thread, delivery_interval=1, logger=SILENT
            ) as producer:
                producer.send_nowait("t", b"x")
    # The broker may notice a little later than we, and a thread is told to end, but not waited for.
    while broker.connections or busy_threads() > before:
        await trio.lowlevel.checkpoint()


async def _with_a_broker_that_dies(broker: Broker, own_thread: bool) -> None:
    """What is sent then cannot be delivered, and is given up."""
    with suppress(trio_kprod.DeliveryFailed):
        async with trio_kprod.open_producer(
            broker.bootstrap_servers, own_thread=own_thread, shutdown_timeout=0.02, logger=SILENT
        ) as producer:
            broker.stop_listening()
            broker.disconnect_all()
            producer.send_nowait("lost", b"x")
    broker.start_listening()
    assert producer.statistics().undelivered == 1


async def main(cycles: int, dead: int, own_thread: bool) -> int:
    with open_broker() as broker:
        await _many(broker, WARM_UP, own_thread)
        await _many(broker, WARM_UP // 10, own_thread, dead=True)
        before, memory = left(), resident_bytes()
        await _many(broker, cycles - dead, own_thread)
        await _many(broker, dead, own_thread, dead=True)
        after, growth = left(), resident_bytes() - memory
    print(f"{cycles} producers, of {dead} the broker died: {growth / 1024:+.0f} KiB")
    for name, one, other in zip(Left._fields, before, after, strict=True):
        print(f"{name}: {'as before' if one == other else f'{one} before, {other} after'}")
    return 0 if before == after and growth < GROWTH_ALLOWED else 1


async def _many(broker: Broker, count: int, own_thread: bool, *, dead: bool = False) -> None:
    """As `cycle`, without the memory that the broker's log takes."""
    for start in range(0, count, STRETCH):
        await cycle(broker, min(STRETCH, count - start), own_thread=own_thread, dead=dead)
        for topic in broker.topics:
            broker.delete_topic(topic)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cycles", type=int, default=1000)
    parser.add_argument("--dead", type=int, default=100)
    parser.add_argument("--loop", action="store_true", help="without threads of their own")
    given = parser.parse_args()
    sys.exit(trio.run(main, given.cycles, given.dead, not given.loop))
