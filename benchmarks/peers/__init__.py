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
        messages: how many of 100 bytes make a round of a second or two.
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
    cannot: frozenset[str] = frozenset()


def _ours(name: str, messages: int, how: str, *cannot: str) -> Peer:
    fast, prompt = {"delivery_threshold": 500}, {"delivery_threshold": 1}
    return Peer(name, "ours", "trio_kprod", "trio", fast, prompt, messages, how, frozenset(cannot))


_ALL = (
    _ours(
        "send_nowait",
        1_000_000,
        "trio_kprod: `send_nowait`, and `await send` where there is no room",
        "waited",
    ),
    _ours("await send", 300_000, "trio_kprod: `await send` for each message", "waited"),
    _ours(
        "send_many",
        1_000_000,
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
        fast={**_PYTHON, "linger_ms": 20, "batch_size": 131_072},
        prompt={**_PYTHON, "linger_ms": 0, "batch_size": 131_072},
        messages=150_000,
        how="kafka-python: `send` from a plain loop",
    ),
    Peer(
        name="aiokafka",
        family="on_asyncio",
        package="aiokafka",
        loop="asyncio",
        fast={**_PYTHON, "linger_ms": 20, "max_batch_size": 131_072},
        prompt={**_PYTHON, "linger_ms": 0, "max_batch_size": 131_072},
        messages=250_000,
        how="`await send`, and at most 20,000 of the futures it returns outstanding",
    ),
    Peer(
        name="AIOProducer",
        family="on_asyncio",
        package="confluent_kafka",
        loop="asyncio",
        fast={**_CONFLUENT, **_MANY, "linger.ms": 5, "batch_size": 5000, "buffer_timeout": 0.1},
        prompt={**_CONFLUENT, **_MANY, "linger.ms": 0, "buffer_timeout": 0.1},
        messages=200_000,
        how="confluent-kafka: `await produce`, at most 20,000 futures outstanding, a task that polls; "
        "prompt: its batch_size is what a millisecond brings",
        cannot=frozenset({"headers"}),
    ),
    Peer(
        name=REFERENCE,
        family="on_threads",
        package="confluent_kafka",
        loop=None,
        fast={**_CONFLUENT, **_MANY, "linger.ms": 20, "batch.num.messages": 10_000, "batch.size": 1_000_000},
        prompt={**_CONFLUENT, **_MANY, "linger.ms": 0},
        messages=1_500_000,
        how="confluent-kafka: `produce` from a plain loop, `poll` where its queue is full; no event loop",
    ),
)

PEERS = {peer.name: peer for peer in _ALL}

#: Those we would be replaced by: their messages pass through a loop of Python, as ours do.
PYTHON_LOOPS = ("KafkaProducer", "aiokafka", "AIOProducer")


def is_installed(peer: Peer) -> bool:
    """Whether it can be run here."""
    return importlib.util.find_spec(peer.package) is not None
