"""Why messages of a topic are not acknowledged: what the last attempt of each partition ended in.

Each time an attempt ends in an error, the client is told, and logs it. The error also becomes the cause in
the errors of messages that are given up meanwhile.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from .._errors import ConnectionLost
from ._actions import Troubled, Untroubled

if TYPE_CHECKING:
    from .._errors import ProducerError
    from ._outbox import Outbox

#: Stands for all partitions of a topic, and for the messages that have none.
WHOLE_TOPIC: Final = -1


class Troubles:
    """The troubles of one topic, by partition."""

    def __init__(self, topic: str, outbox: Outbox) -> None:
        self._topic = topic
        self._outbox = outbox
        self._failed: dict[int, ProducerError] = {}  # the last error, if nothing was acknowledged since
        self._unreachable: dict[int, BaseException] = {}  # why there is no connection to the leader

    def add(self, partition: int, error: ProducerError, *, final: bool = False) -> None:
        """An attempt ended in an error; `final` says that there will be no other."""
        self._failed[partition] = error
        if not isinstance(error, ConnectionLost):  # the client logs those with the connection
            self._outbox.observe("topic_error", lambda: {"topic": self._topic, "error": error})
            self._outbox.actions.append(Troubled(self._topic, partition, error, self._failed, final=final))

    def unreachable(self, partition: int, error: BaseException) -> None:
        """An attempt to connect to the leader has failed."""
        self._unreachable[partition] = error

    def reached(self, partition: int) -> None:
        """There is a connection to the leader."""
        self._unreachable.pop(partition, None)

    def over(self, partition: int, *, recovered: bool = True) -> None:
        """A message was acknowledged. Or (not `recovered`) nothing waits any more, so we do not know whether
        the trouble is over.
        """
        if self._unreachable:
            self._unreachable.pop(partition, None)
        if self._failed and self._failed.pop(partition, None) is not None and not self._failed:
            self._outbox.actions.append(Untroubled(self._topic, recovered=recovered))

    def of(self, partition: int) -> BaseException | None:
        """What holds up a partition's messages. For those without partition (WHOLE_TOPIC) any trouble will
        do.
        """
        for known in (self._unreachable, self._failed):
            error = known.get(partition) or known.get(WHOLE_TOPIC)
            if error is None and partition == WHOLE_TOPIC:
                error = next(iter(known.values()), None)
            if error is not None:
                return error
        return None
