"""What brokers say of a topic, how often we ask them, and how far we believe them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple
from uuid import UUID

#: What brokers without topic ids (KIP-516) call every topic.
NO_TOPIC_ID = UUID(int=0)


@dataclass(frozen=True, slots=True)
class PartitionMetadata:
    index: int
    leader: int
    leader_epoch: int


class TopicMetadata(NamedTuple):
    """What a metadata response says of one topic."""

    name: str
    code: int
    id: UUID = NO_TOPIC_ID
    partitions: Sequence[PartitionMetadata] = ()


class MetadataRequests:
    """How often we have asked for a topic's metadata, and when we may ask again.

    Attributes:
        made (int): how many requests named the topic.
        useless (int): how many responses in a row were of no help.
        not_before (float): no further request is made before this time.
        is_due_later (bool): a timer is set for that time.
        is_outdated (bool): the metadata is old; request it as soon as the topic is wanted.
    """

    __slots__ = ("is_due_later", "is_outdated", "made", "not_before", "useless")

    def __init__(self) -> None:
        self.made = 0
        self.useless = 0
        self.not_before = 0.0
        self.is_due_later = False
        self.is_outdated = False


class MetadataTrust:
    """How far to believe metadata. A broker may be cut off, and tell what was true before.

    Metadata is *useless* while it lacks the topic, or looks older than what we know. If all that brokers tell
    for `topic_timeout` seconds is useless, we believe it after all. Only time in which some broker responds
    counts, so an outage never does.

    Attributes:
        former_ids (set[UUID]): ids that the topic had before it was created again.
    """

    def __init__(self, topic_timeout: float) -> None:
        self.former_ids: set[UUID] = set()
        self._topic_timeout = topic_timeout
        self._useless_for = 0.0
        self._useless_at: float | None = None

    @property
    def is_in_doubt(self) -> bool:
        """Whether the last response was useless."""
        return self._useless_at is not None

    def settle(self) -> None:
        """The last response helped, or it is believed now, or the time until now does not count."""
        self._useless_for, self._useless_at = 0.0, None

    def is_useless_for_too_long(self, now: float, responding_since: float) -> bool:
        """Count a useless response; `responding_since` is when brokers began to respond after an outage."""
        again = self._useless_at is not None
        if self._useless_at is not None:
            self._useless_for += max(0.0, now - max(self._useless_at, responding_since))
        self._useless_at = now
        return again and self._useless_for >= self._topic_timeout

    def looks_older(self, metadata: TopicMetadata, topic_id: UUID, leader_epochs: Sequence[int]) -> bool:
        """Whether this looks like old news. (Without topic ids, the topic may have been created again.)"""
        if metadata.id not in (NO_TOPIC_ID, topic_id):
            return metadata.id in self.former_ids
        if metadata.id == NO_TOPIC_ID and len(metadata.partitions) < len(leader_epochs):
            return True
        return any(
            one.leader_epoch < leader_epochs[one.index]
            for one in metadata.partitions
            if one.index < len(leader_epochs)
        )
