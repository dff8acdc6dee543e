"""Messages with neither key nor partition: which partition gets the next batch of them (KIP-480, KIP-794).

Each batch goes to one partition, so that batches are large. The partition with the fewest unsettled bytes
comes first, so that a slow broker gets less than a quick one.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterator, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING

from .._messages import Entry
from ._partition import take

if TYPE_CHECKING:
    from ._batch import Batch
    from ._partition import Partition
    from ._topic import Topic

#: How many partitions compete for the next messages.
_CANDIDATES = 32


class Keyless:
    """The messages of one topic that wait for a partition, and any will do.

    Attributes:
        messages (deque[Entry]): in the order in which they were accepted.
        size (int): their bytes.
    """

    def __init__(self, topic: Topic) -> None:
        self.messages: deque[Entry] = deque()
        self.size = 0
        self._topic = topic

    def form(self, may_send_to: Callable[[int], bool], taken: Collection[Partition]) -> Iterator[Batch]:
        """Form batches, one after the other, as long as the caller wants more.

        Only partitions whose leader is connected count, so that a dead broker holds none of the messages up.
        Partitions in `taken` have their batch of this round already. If there are many partitions, we look at
        a random sample of them, and at the others only if the sample takes no batch.
        """
        partitions = self._topic.partitions
        if len(partitions) > _CANDIDATES:
            some = self._topic.shared.random.sample(partitions, _CANDIDATES)
            formed = False
            for batch in self._form_among(some, may_send_to, taken):
                formed = True
                yield batch
            if formed:
                return
        yield from self._form_among(partitions, may_send_to, taken)

    def _form_among(
        self,
        partitions: Sequence[Partition],
        may_send_to: Callable[[int], bool],
        taken: Collection[Partition],
    ) -> Iterator[Batch]:
        topic, outbox = self._topic, self._topic.shared.outbox
        if any(partition.leader < 0 for partition in partitions):
            outbox.refresh(topic)
        first = int(topic.shared.random.random() * len(partitions))  # a random one of equals
        in_turn = [*partitions[first:], *partitions[:first]]
        open_to = [one for one in in_turn if one not in taken and may_send_to(one.leader)]
        for partition in sorted(open_to, key=attrgetter("unsettled_bytes")):
            if self.messages and partition.may_form(self.size):
                entries, size = take(self.messages, partition.batch_limit)
                self.size -= size
                topic.placeless.move_on(outbox.now, still_waits=topic.has_placeless)
                partition.progress.begin_to_wait(outbox.now)
                yield partition.form(entries, size)
