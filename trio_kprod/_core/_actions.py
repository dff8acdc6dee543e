"""What the core wants done: by the client, or (reports) by the user's loop."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, NamedTuple

from ._reports import Report

if TYPE_CHECKING:
    from .._errors import ProducerError
    from ._batch import Request


class Send(NamedTuple):
    """Send this request over the connection to its node."""

    request: Request


class Withdraw(NamedTuple):
    """Every batch of this request was given up before its write started: forget it."""

    request: Request


class Connect(NamedTuple):
    """Something waits for a connection to this node."""

    node: int


class RequestMetadata(NamedTuple):
    """Ask any broker for these topics; `metadata` or `metadata_failed` follows."""

    topics: tuple[str, ...]


class RequestProducerId(NamedTuple):
    """Ask any broker for a producer id; `producer_id` or `producer_id_failed` follows."""


class Troubled(NamedTuple):
    """An attempt to send to a topic, or to learn of it, ended in `error`. For the log.

    `partition` is -1 for the whole topic. `all` is what is wrong just now, by partition; it goes on changing.
    `final` says that messages were given up for it.
    """

    topic: str
    partition: int
    error: ProducerError
    all: Mapping[int, ProducerError]
    final: bool


class Untroubled(NamedTuple):
    """Nothing is wrong with a topic any more; if not `recovered`, because nothing waits."""

    topic: str
    recovered: bool


class Shrunk(NamedTuple):
    """Requests of `size` bytes end each connection to a node, so they are made smaller. For the log."""

    node: int
    size: int
    limit: int


Notice = Troubled | Untroubled | Shrunk
Action = Send | Withdraw | Connect | RequestMetadata | RequestProducerId | Notice | Report
