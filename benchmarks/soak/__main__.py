"""``python -m benchmarks.soak``: see the package."""

from __future__ import annotations

import argparse
import contextlib
import time
from collections.abc import Generator
from pathlib import Path
from random import randrange
from typing import Any

import trio

import benchmarks.soak
from benchmarks.harness.command import NoKafka
from benchmarks.harness.results import DIRECTORY, SAMPLES
from benchmarks.soak.embedded import Embedded
from benchmarks.soak.places import Place
from benchmarks.soak.real import RealCluster
from benchmarks.soak.report import keep, summary, tell
from benchmarks.soak.run import Plan, soak
from tests.kafka.cluster import Cluster
from tests.kafka.jars import Unavailable


def main() -> None:
    """Run, print, keep, judge."""
    given = _parser().parse_args()
    plan = Plan(
        given.minutes, given.seed, given.acks, given.own_thread, given.rate, given.patience, tuple(given.only)
    )
    log = (given.results or DIRECTORY / SAMPLES) / "soak.log"
    with _place(given) as place:
        print(f"{place.name}, {plan}; warnings go to {log}", flush=True)
        began = time.monotonic()
        outcome = trio.run(soak, place, plan, log)
        found = summary(place.name, plan, outcome, (time.monotonic() - began) / 60)
    path = keep(found, given.results)
    print(f"{tell(found)}\nkept in {path}")
    raise SystemExit(bool(found["problems"]))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.soak",
        description=benchmarks.soak.__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--minutes", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=randrange(10**6), help="by default another each time")
    where = parser.add_mutually_exclusive_group()
    where.add_argument("--nodes", type=int, default=3, help="of a real Kafka, which is started; 3 by default")
    where.add_argument("--embedded", action="store_true", help="the embedded broker instead")
    clients = parser.add_mutually_exclusive_group()
    clients.add_argument("--loop", dest="own_thread", action="store_false", default=None)
    clients.add_argument("--threads", dest="own_thread", action="store_true", help="by default some of each")
    parser.add_argument("--acks", type=_acks, default="all", choices=("all", 1, 0))
    parser.add_argument("--rate", type=float, default=800.0, help="messages a second, at the most")
    parser.add_argument("--patience", type=float, default=4.0, help="minutes until a stall is called one")
    kinds = sorted({*RealCluster.kinds, *Embedded.kinds})
    parser.add_argument("--only", nargs="+", default=[], choices=kinds, metavar="KIND", help=", ".join(kinds))
    parser.add_argument("--results", type=Path, help="a directory for summary and log")
    return parser


def _acks(text: str) -> Any:
    return text if text == "all" else int(text)


@contextlib.contextmanager
def _place(given: argparse.Namespace) -> Generator[Place, None, None]:
    if given.embedded:
        with Embedded() as embedded:
            yield embedded
        return
    try:
        with Cluster(given.nodes, auto_create_topics_enable="false") as cluster:
            yield RealCluster(cluster)
    except Unavailable as error:
        raise NoKafka(f"no Apache Kafka: {error}") from None


if __name__ == "__main__":
    main()
