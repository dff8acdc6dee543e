"""The producers that are compared, and the settings each is given: the best its documentation offers.

All have ``acks=all`` and are idempotent. *Fast* settings are for rates, *prompt* ones for acknowledgements.
Ours are there in each of their modes. Nothing is imported here but what the table needs, so that no producer
pays for another.
"""

from __future__ import annotations

import functools
import importlib.util
import os
import subprocess
import sys
from collections.abc import Collection, Iterable, Iterator
from typing import Any, NamedTuple

_CONFLUENT = {"acks": "all", "enable.idempotence": True}
_MANY = {"queue.buffering.max.messages": 1_000_000, "queue.buffering.max.kbytes": 1_048_576}
_PYTHON = {"acks": "all", "enable_idempotence": True}

#: What the machine could do.
REFERENCE = "Producer (C)"

#: The level of gzip for all that can be told one, and of those that cannot.
GZIP_LEVEL, FIXED_GZIP_LEVEL = 6, 9

#: Makes our producer leave its compiled parts aside; where it is not set they are used if they are there.
_PURE = "TRIO_KPROD_PURE"


class Mode(NamedTuple):
    """Where our client runs, and in what its hot path is written.

    Attributes:
        name: what stands behind a way of sending; nothing for the default.
        faster: about how many times the default's messages it sends.
    """

    name: str
    own_thread: bool
    compiled: bool
    faster: float

    @property
    def title(self) -> str:
        """In a table of modes."""
        return ", ".join(["own thread" if self.own_thread else "own loop", *["compiled"] * self.compiled])


DEFAULT = Mode("", own_thread=True, compiled=False, faster=1.0)
MODES = (
    DEFAULT,
    Mode("own loop", own_thread=False, compiled=False, faster=1.2),
    Mode("compiled", own_thread=True, compiled=True, faster=1.6),
    Mode("own loop, compiled", own_thread=False, compiled=True, faster=2.0),
)


class Peer(NamedTuple):
    """A way of producing.

    Attributes:
        family: the module beside this one that knows how to drive it.
        package: what must be importable.
        loop: the event loop it runs in, if any.
        messages: about how many of 100 bytes it sends in a second.
        how: it is driven.
        tried: of which settings the fast ones are the best, at 100 bytes and 1 KB, on two cores.
        cannot: what of a `Job` it has no way to do.
        gzip: the settings that make gzip's level `GZIP_LEVEL`; None if it cannot be told.
        way: which of our ways of sending it is.
        mode: in which of our modes.
    """

    name: str
    family: str
    package: str
    loop: str | None
    fast: dict[str, Any]
    prompt: dict[str, Any]
    messages: int
    how: str
    tried: str = ""
    cannot: frozenset[str] = frozenset()
    gzip: dict[str, Any] | None = None
    way: str = ""
    mode: Mode = DEFAULT

    @property
    def is_ours(self) -> bool:
        return self.family == "ours"


def ours(way: str, mode: Mode) -> str:
    """The name of one of our ways of sending in one of our modes."""
    return f"{way}, {mode.name}" if mode.name else way


def _ours(way: str, messages: int, how: str, *cannot: str) -> Iterator[Peer]:
    for mode in MODES:
        where: dict[str, Any] = {} if mode.own_thread else {"own_thread": False}
        yield Peer(
            name=ours(way, mode),
            family="ours",
            package="trio_kprod_speedups" if mode.compiled else "trio_kprod",
            loop="trio",
            fast={"delivery_threshold": 500, **where},
            prompt={"delivery_threshold": 1, **where},
            messages=int(messages * mode.faster),
            how=how,
            tried="`delivery_threshold` 1 to 2,000; no default changed",
            cannot=frozenset(cannot),
            gzip={"compression_level": GZIP_LEVEL},
            way=way,
            mode=mode,
        )


_ALL = (
    *_ours(
        "send_nowait",
        300_000,
        "trio_kprod: `send_nowait`, and `await send` where there is no room",
        "waited",
    ),
    *_ours("await send", 250_000, "trio_kprod: `await send` for each message", "waited"),
    *_ours(
        "send_many",
        300_000,
        "trio_kprod: one `send_many` for each topic, one after the other",
        "waited",
        "paced",
        "headers",
    ),
    *_ours("send_and_wait", 0, "trio_kprod: `await send_and_wait` for each message", "flood", "paced"),
    Peer(
        name="KafkaProducer",
        family="on_threads",
        package="kafka",
        loop=None,
        fast={**_PYTHON, "linger_ms": 100, "batch_size": 524_288},
        prompt={**_PYTHON, "linger_ms": 0, "batch_size": 131_072},
        messages=70_000,
        how="kafka-python: `send` from a plain loop",
        tried="`linger_ms` 5, 20, 100; `batch_size` 16, 64, 128, 512 KiB",
    ),
    Peer(
        name="aiokafka",
        family="on_asyncio",
        package="aiokafka",
        loop="asyncio",
        fast={**_PYTHON, "linger_ms": 0, "max_batch_size": 524_288},
        prompt={**_PYTHON, "linger_ms": 0, "max_batch_size": 131_072},
        messages=130_000,
        how="`await send`, and at most 5,000 of the futures it returns outstanding",
        tried="`linger_ms` 0, 5, 20, 100; `max_batch_size` 16, 64, 128, 512 KiB; 1,000 to 100,000 futures",
    ),
    Peer(
        name="AIOProducer",
        family="on_asyncio",
        package="confluent_kafka",
        loop="asyncio",
        fast={**_CONFLUENT, **_MANY, "linger.ms": 5, "batch_size": 1000, "buffer_timeout": 0.1},
        prompt={**_CONFLUENT, **_MANY, "linger.ms": 0, "buffer_timeout": 0.1},
        messages=150_000,
        how="confluent-kafka: `await produce`, at most 5,000 futures outstanding, a task that polls; "
        "prompt: its batch_size is what a millisecond brings",
        tried="`linger.ms` 0, 5, 20; `batch_size` 500 to 20,000; `buffer_timeout` 0.1, 1; `batch.size` 1 MB; "
        "1,000 to 100,000 futures",
        cannot=frozenset({"headers"}),
        gzip={"compression.level": GZIP_LEVEL},
    ),
    Peer(
        name=REFERENCE,
        family="on_threads",
        package="confluent_kafka",
        loop=None,
        fast={**_CONFLUENT, **_MANY, "linger.ms": 20, "batch.num.messages": 100_000, "batch.size": 1_000_000},
        prompt={**_CONFLUENT, **_MANY, "linger.ms": 0},
        messages=700_000,
        how="confluent-kafka: `produce` from a plain loop, `poll` where its queue is full; no event loop",
        tried="`linger.ms` 5, 20, 100; `batch.num.messages` 10,000, 100,000; `batch.size` 128 KiB, 1 MB",
        gzip={"compression.level": GZIP_LEVEL},
    ),
)

PEERS = {peer.name: peer for peer in _ALL}

#: Those we would be replaced by: their messages pass through a loop of Python, as ours do.
PYTHON_LOOPS = ("KafkaProducer", "aiokafka", "AIOProducer")


def pick(peers: Iterable[Peer], every_mode: Collection[str] = ()) -> list[Peer]:
    """The other producers, ours in the default mode, and these ways of sending in every mode."""
    return [peer for peer in peers if peer.mode == DEFAULT or peer.way in every_mode]


def environment(peer: Peer) -> dict[str, str]:
    """Of the process in which it runs: what says which of our modes it has."""
    others = {name: value for name, value in os.environ.items() if name != _PURE}
    return others if peer.mode.compiled else {**others, _PURE: "1"}


def is_installed(peer: Peer) -> bool:
    """Whether it can be run here."""
    if peer.mode.compiled:
        return _is_compiled()
    return importlib.util.find_spec(peer.package) is not None


@functools.cache
def _is_compiled() -> bool:
    """Whether a process without `_PURE` uses the compiled parts."""
    ask = "from trio_kprod.testing import speedups_in_use; raise SystemExit(not speedups_in_use())"
    compiled = next(peer for peer in _ALL if peer.mode.compiled)
    asked = subprocess.run(
        [sys.executable, "-c", ask], env=environment(compiled), stderr=subprocess.DEVNULL, check=False
    )
    return asked.returncode == 0
