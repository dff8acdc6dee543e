"""What the client tells the delivery task: the values that cross from the client's loop to the user's."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

from .._messages import Entry


class Settled(NamedTuple):
    """The outcome of messages that were in one batch: `error` is None if they were delivered.

    `entries` are in the order in which they were accepted. `base_offset` and `timestamp_ms` are -1 where the
    broker gave none (it gives a timestamp only for topics with log-append time). `partition` is -1 for
    messages that never got one. `attempts` is how often the batch's bytes reached a socket.
    """

    topic: str
    partition: int
    base_offset: int
    timestamp_ms: int
    entries: Sequence[Entry]
    size: int
    attempts: int
    error: BaseException | None = None
    maybe_written: bool = False


@dataclass(frozen=True, slots=True)
class PartitionCount:
    """How many partitions a topic has, on request or because the number has changed.

    `error` says why no broker tells the number.
    """

    topic: str
    count: int
    error: BaseException | None = None


class Stalled(NamedTuple):
    """Some messages of the topic make no progress (`_progress` defines that). `cause` says why, if known."""

    topic: str
    cause: BaseException | None = None


class Recovered(NamedTuple):
    """A message of a stalled topic was acknowledged, and none of its parts is stalled any more."""

    topic: str


class Observed(NamedTuple):
    """Something for the instruments: the hook's name and its payload. Only sent if there are instruments."""

    hook: str
    payload: Mapping[str, Any]


class Opened(NamedTuple):
    """The first report: a broker responded, or `error` says why none could be reached in time."""

    error: BaseException | None = None


class Throttled(NamedTuple):
    """A broker makes us pause for `pause` more seconds, because a quota is used up (KIP-219)."""

    broker: str
    pause: float


Report = Settled | PartitionCount | Stalled | Recovered | Throttled | Observed | Opened
