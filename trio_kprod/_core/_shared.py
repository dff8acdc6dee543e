"""What all parts of one produce core share: its rules, its outbox, its producer id, its dice."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from math import inf
from random import Random
from typing import TYPE_CHECKING, Any

from ._gathering import Gathering
from ._limits import RequestLimits
from ._outbox import Outbox
from ._partitioners import Partitioner

if TYPE_CHECKING:
    from ._partition import Partition

#: Brokers recognise a duplicate among the last five batches they appended of a producer, no further back.
IDEMPOTENT_WINDOW = 5

#: `retry_backoff` doubles up to the first, unless it is longer itself. It is never shorter than the second.
MAX_BACKOFF = 1.0
MIN_BACKOFF = 0.01

#: A request for metadata or a producer id that was of no help is not repeated sooner than this.
REQUEST_PACE = 0.05

#: A message for a partition that the topic does not have is kept this long: partitions are added, and brokers
#: take a while to tell each other.
PARTITION_GRACE = 5.0


@dataclass(frozen=True, slots=True)
class Rules:
    """The settings the core goes by; times in seconds. See `open_producer` for their meaning."""

    idempotent: bool = True
    has_responses: bool = True  # False with ``acks=0``: no broker says what became of a batch
    batch_size: int = 524_288
    max_request_size: int = 1_048_576
    compression: int = 0
    compression_level: int | None = None
    retry_backoff: float = 0.1
    max_retries: int = -1
    delivery_timeout: float = inf
    topic_timeout: float = 60.0
    metadata_max_age: float = 300.0
    partitioner: Partitioner | None = None  # None: as Java, see `_partitioners`
    observed: bool = False
    yield_gil: Callable[[], object] = field(default=lambda: None)
    # Runs something that may take long. Another thread may take the core away meanwhile.
    unlocked: Callable[[Callable[[], Any]], Any] = field(default=lambda function: function())
    request_overhead: int = 0  # of every produce request, see `_messages.request_overhead`

    @property
    def window(self) -> int:
        """How many batches of a partition may be unsettled at a time.

        Without idempotence one, so that order holds even if a batch is sent again.
        """
        return IDEMPOTENT_WINDOW if self.idempotent else 1


class Abandoned(BaseException):
    """Code that the core calls raises this through the core, when it must not be touched any more.

    It is no Exception, so that no handler takes it for an error of that code.
    """


class Shared:
    """One per core."""

    def __init__(self, rules: Rules, random: Random) -> None:
        self.rules = rules
        self.random = random
        self.outbox = Outbox(observed=rules.observed)
        self.gathering = Gathering(self.outbox)
        self.limits = RequestLimits(self.outbox)
        # None until a broker gave one. Without idempotence Kafka wants -1, and none is asked for.
        self.producer_id: int | None = None if rules.idempotent else -1
        self.spoiled_ids: set[int] = set()
        self.no_producer_id: BaseException | None = None  # why no broker gave one, if that is known
        self.no_metadata: BaseException | None = None  # why no broker responded, the last time we asked
        # The partitions each node leads.
        self.led_by: dict[int, dict[Partition, None]] = {}

    @property
    def needs_producer_id(self) -> bool:
        return self.producer_id is None or self.producer_id in self.spoiled_ids

    def backoff(self, failures: int) -> float:
        """How long to wait after this number of failures. The jitter only shortens it."""
        base = max(self.rules.retry_backoff, MIN_BACKOFF)
        longest = max(base, MAX_BACKOFF)
        exponent = min(failures - 1, 30)
        return min(base * 2.0**exponent, longest) * (1 - 0.2 * self.random.random())

    def request_pause(self, failures: int) -> float:
        """The same for requests about topics and producer ids."""
        return max(self.backoff(failures), REQUEST_PACE)
