"""The producers that are compared, and the settings each is given: the best its documentation offers.

All have ``acks=all`` and are idempotent. *Fast* settings are for rates, *prompt* ones for acknowledgements.
Nothing is imported here but what the table needs, so that no producer pays for another.
"""

from __future__ import annotations

import importlib.util
from typing import Any, NamedTuple

_CONFLUENT = {"acks": "all", "enable.idempotence": True}
_MANY = {"queue.buffering.max.messages": 1_000_000, "queue.buffering.max.kbytes": 1_048_576}
_PYTHON = {"acks": "all", "enable_idempotence": True}


#: What the machine could do.
REFERENCE = "Producer (C)"


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


def _ours(name: str, messages: int, how: str, *cannot: str) -> Peer:
    return Peer(
        name=name,
        family="ours",
        package="trio_kprod",
        loop="trio",
        fast={"delivery_threshold": 500},
        prompt={"delivery_threshold": 1},
        messages=messages,
        how=how,
        tried="`delivery_threshold` 1 to 2,000; no default changed",
        cannot=frozenset(cannot),
    )


_ALL = (
    _ours(
        "send_nowait",
        300_000,
        "trio_kprod: `send_nowait`, and `await send` where there is no room",
        "waited",
    ),
    _ours("await send", 120_000, "trio_kprod: `await send` for each message", "waited"),
    _ours(
        "send_many",
        300_000,
        "trio_kprod: one `send_many` for each topic, one after the other",
        "waited",
        "paced",
        "headers",
    ),
    _ours("send_and_wait", 0, "trio_kprod: `await send_and_wait` for each message", "flood", "paced"),
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
    ),
)

PEERS = {peer.name: peer for peer in _ALL}

#: Those we would be replaced by: their messages pass through a loop of Python, as ours do.
PYTHON_LOOPS = ("KafkaProducer", "aiokafka", "AIOProducer")


def is_installed(peer: Peer) -> bool:
    """Whether it can be run here."""
    return importlib.util.find_spec(peer.package) is not None
