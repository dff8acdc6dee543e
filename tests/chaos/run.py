"""Run one seed: in virtual time, or with sockets and real time, in a worker thread or the caller's loop."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from random import Random
from typing import Any
from unittest.mock import patch

import trio
import trio._core._run
from trio.testing import MockClock

from tests.chaos.storm import Storm
from tests.modes import as_with_a_thread
from trio_kprod import open_producer
from trio_kprod._client import _client
from trio_kprod.testing import MemoryBroker, open_broker, open_memory_producer

#: What would be a second takes so long where the time is real.
REAL_PACE = 0.01

#: How much longer than it may take anything may take there, on a machine that is busy with other things.
PATIENCE = 30.0


class Failed(AssertionError):
    """A claim does not hold; the text has the seed and all that happened."""


@contextmanager
def explained(seed: int, storm: Storm, mode: str) -> Iterator[None]:
    try:
        yield
    except BaseException as error:
        raise Failed(f"seed {seed} {mode}:\n{storm.story()}\nseed {seed} {mode}: {error!r}") from error


@contextmanager
def chance(seed: int) -> Iterator[None]:
    """Everything that is left to chance, decided by the seed: trio's order of tasks, and our own jitter."""
    state = random.getstate()
    random.seed(seed)
    scheduling: dict[str, Any] = {"_ALLOW_DETERMINISTIC_SCHEDULING": True, "_r": Random(seed)}
    try:
        with (
            patch.multiple(trio._core._run, **scheduling),
            patch.object(_client, "Random", lambda: Random(seed)),
        ):
            yield
    finally:
        random.setstate(state)


def run_in_memory(seed: int) -> Storm:
    """One run in virtual time; with odd seeds, as if the client had a thread of its own. Raises `Failed`."""
    storm = Storm(seed)
    seam = as_with_a_thread() if seed % 2 else nullcontext()
    with explained(seed, storm, "in memory"), chance(seed), seam:
        trio.run(_rage_in_memory, storm, clock=MockClock(autojump_threshold=0))
    return storm


async def _rage_in_memory(storm: Storm) -> None:
    broker = MemoryBroker(**storm.broker_options)
    tasks = trio.lowlevel.current_statistics().tasks_living
    with trio.fail_after(10_000):
        await storm.rage(open_memory_producer(broker, **storm.options), broker)
    # Stopping takes no time where nobody needs the second of grace.
    assert storm.left_after <= storm.settings["shutdown_timeout"] + 0.001, storm.left_after
    assert trio.lowlevel.current_statistics().tasks_living == tasks


def run_on_sockets(seed: int, *, own_thread: bool) -> Storm:
    """One run with sockets and real time. Raises `Failed`."""
    storm = Storm(seed, REAL_PACE, time.monotonic)
    with explained(seed, storm, "in a thread" if own_thread else "in the loop"):
        trio.run(_rage_on_sockets, storm, own_thread)
    return storm


async def _rage_on_sockets(storm: Storm, own_thread: bool) -> None:
    tasks = trio.lowlevel.current_statistics().tasks_living
    with open_broker(**storm.broker_options) as broker:
        with trio.fail_after(storm.settings["shutdown_timeout"] + PATIENCE):
            opening = open_producer(broker.bootstrap_servers, own_thread=own_thread, **storm.options)
            await storm.rage(opening, broker)
    assert storm.left_after <= storm.settings["shutdown_timeout"] + 1 + PATIENCE
    assert trio.lowlevel.current_statistics().tasks_living == tasks
