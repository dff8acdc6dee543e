"""One run: faults, producers and those who watch, beside each other; then the check."""

from __future__ import annotations

import contextlib
import signal
import traceback
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

import trio

import trio_kprod
from benchmarks.soak.ledger import Ledger, Verdict
from benchmarks.soak.lives import SPANS, Lives
from benchmarks.soak.places import PARTITIONS, TOPICS, Place
from benchmarks.soak.schedule import Fault, schedule
from benchmarks.soak.senders import Pace
from benchmarks.soak.watch import LogWatch, Watch


@dataclass(frozen=True)
class Plan:
    """What was asked for.

    Attributes:
        own_thread: where clients run; None for some here and some there.
        patience: minutes that a message may wait before that is called a stall.
        only: the kinds of faults there may be; none for all that the place has.
    """

    minutes: float
    seed: int
    acks: Any = "all"
    own_thread: bool | None = None
    rate: float = 800.0
    patience: float = 4.0
    only: tuple[str, ...] = ()


@dataclass
class Outcome:
    """What came of it."""

    verdict: Verdict
    watch: Watch
    lives: Lives
    ledger: Ledger
    log: LogWatch
    problems: list[str]


async def soak(place: Place, plan: Plan, log: Path) -> Outcome:
    """Make the faults of the plan, and check what became of every message."""
    ledger = Ledger()
    lives = Lives(place.servers, ledger, Pace(plan.rate), plan.acks, plan.own_thread)
    watch = Watch(lives, ledger, plan.minutes, plan.patience * 60)
    for topic in TOPICS:
        await trio.to_thread.run_sync(place.create, topic)
    with LogWatch(ledger, log) as logged:
        async with trio.open_nursery() as watching:
            watching.start_soon(watch.tell)
            watching.start_soon(watch.look, lambda: watching.start_soon(_look_at_stall, place, watch))
            watching.start_soon(_end_on_signals, lives)
            async with trio.open_nursery() as living:
                for span in SPANS:
                    living.start_soon(lives.succeed, span, Random(f"{span} {plan.seed}"))
                await make_faults(place, plan, watch)
            watching.cancel_scope.cancel()
    watch.end()
    watch.connections = place.connections()
    print("\nreading the log", flush=True)
    for topic in TOPICS:
        await trio.to_thread.run_sync(lambda topic: ledger.read(place.read(topic)), topic)
    verdict = ledger.verdict()
    problems = [*_wrong(verdict, plan, ledger), *lives.problems, *logged.criticals]
    problems += [watch.stalled] if watch.stalled else []
    return Outcome(verdict, watch, lives, ledger, logged, problems)


def _wrong(verdict: Verdict, plan: Plan, ledger: Ledger) -> list[str]:
    return [
        f"{name.replace('_', ' ')}: {getattr(verdict, name):,}, such as {ledger.examples[name]}"
        for name in verdict.wrong(str(plan.acks))
    ]


async def make_faults(place: Place, plan: Plan, watch: Watch) -> None:
    """One after the other, until the time is over; none is left half made."""
    over = watch.lives.over
    kinds = {name: kind for name, kind in place.kinds.items() if name in (plan.only or place.kinds)}
    with trio.move_on_after(plan.minutes * 60):
        for fault in schedule(plan.seed, kinds):
            with trio.move_on_after(fault.pause):
                await over.wait()
            if over.is_set():
                break
            with trio.CancelScope(shield=True):
                await _make(place, fault, watch)
    over.set()


async def _make(place: Place, fault: Fault, watch: Watch) -> None:
    """What the cluster or the machine cannot do is noted: it is no fault of ours."""
    watch.fault, watch.under_way = fault, True
    watch.faults[fault.kind] += 1
    try:
        made = place.fault(fault)
        await trio.to_thread.run_sync(made.__enter__)
        with trio.move_on_after(fault.seconds):
            await watch.lives.over.wait()
        await trio.to_thread.run_sync(made.__exit__, None, None, None)
    except Exception as error:
        watch.unsure.append(f"fault {fault.number}, {fault.kind}: {type(error).__name__}: {str(error)[:300]}")
        with contextlib.suppress(Exception):
            await trio.to_thread.run_sync(place.restore)
    watch.under_way = False


async def _end_on_signals(lives: Lives) -> None:
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async for _ in signals:
            print("\nending", flush=True)
            lives.over.set()


async def _look_at_stall(place: Place, watch: Watch) -> None:
    """Is it Kafka that stands still, or we? Another producer tries the same; then the run ends."""
    lines = [f"{watch.stalled}, during {watch.fault}"]
    lines += [f"producer {number}: {one.statistics()}" for number, one in watch.lives.now.items()]
    for partition in range(PARTITIONS[TOPICS.steady]):
        lines.append(f"{TOPICS.steady}[{partition}]: {await _try(place, watch, partition)}")
    watch.stalled = "; ".join(lines)
    watch.lives.over.set()


async def _try(place: Place, watch: Watch, partition: int) -> str:
    number = watch.ledger.begin()
    try:
        async with trio_kprod.open_producer(
            place.servers, shutdown_timeout=0, connect_timeout=10
        ) as producer:
            with trio.fail_after(20):
                value = b"%d 0 placed probe" % number
                watch.ledger.unsure(number, 0)
                await producer.send_and_wait(TOPICS.steady, value, partition=partition)
    except Exception as error:
        return f"neither does another producer: {traceback.format_exception_only(error)[-1].strip()}"
    finally:
        watch.ledger.accounts.pop(0, None)
    return "another producer delivers"
