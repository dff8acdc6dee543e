"""What a response, or its absence, does to a batch and to the batches around it.

There is one function for each `Reaction` of the table in `_error_codes`. It is called with the batch, which
is no longer in flight, and leaves the partition so that `Partition.next_batch` says what comes next.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .._errors import ConnectionLost, NoResponse, ProducerError, RetriesExhausted
from .._messages import BATCH_OVERHEAD, Entry
from ._actions import Withdraw
from ._batch import Batch
from ._error_codes import PartitionResponse, Reaction, Row, may_have_appended, refusal, row
from ._partition import Partition, Phase

#: A request that loses this many connections is sent as single batches.
LOSSES_UNTIL_ALONE = 2

#: A batch that loses this many connections in a row, most of them alone, is halved, and so are its parts at
#: each further loss. At the pace of reconnecting, that begins after two seconds.
LOSSES_UNTIL_HALVED = LOSSES_UNTIL_ALONE + 4

#: For this time in seconds, at the start of each connection, such batches let the others go first.
TURN_OF_OTHERS = 0.25

#: A message that travels alone and ends thirty connections in a row is given up, even if `max_retries` would
#: allow more. At the pace of reconnecting that takes half a minute, in which the broker took connections all
#: the time. After that, a message half as large to the same broker is given up after `LOSSES_UNTIL_HALVED`.
_LOSSES_UNTIL_GIVEN_UP = LOSSES_UNTIL_ALONE + 30


def responded(batch: Batch, response: PartitionResponse) -> None:
    """A broker responded for the batch."""
    means = row(response.code)
    batch.request = None
    batch.attempts += 1
    batch.connections_lost = 0
    if means.reaction is not Reaction.WRITTEN:
        batch.partition.probe()
        if may_have_appended(response):
            batch.mark_maybe_written()
    if means.reaction is not Reaction.OUT_OF_ORDER:
        batch.out_of_order = 0
    if means.new_id:
        batch.partition.spoil_producer_id()
    _REACTIONS[means.reaction](batch, response, means)
    batch.partition.shared.outbox.wake([batch.partition])


def no_response(batch: Batch, cause: BaseException, *, write_started: bool) -> None:
    """The connection ended before a response, or the response did not mention the batch.

    If no byte of its request reached a socket, this was no attempt and has no consequence.
    """
    partition = batch.partition
    batch.request = None
    if write_started:
        partition.probe()
        batch.mark_maybe_written()
        batch.out_of_order = 0
        batch.attempts += 1
        error = ConnectionLost(str(cause))
        error.__cause__ = cause
        _retry_later(batch, error, None)
        batch.wait_for_connection = True
    partition.shared.outbox.refresh(partition.topic)
    partition.shared.outbox.wake([partition])


def blame(node: int, batches: Sequence[Batch], cause: BaseException) -> None:
    """When the connection ended, the request with these batches was the first that waited for a response.

    A broker that does not take a request closes the connection each time it comes. So the request is made
    smaller: first its batches travel alone, then each is halved, and so are its parts. Later requests to this
    node are made that small from the start.
    """
    silent = isinstance(cause, NoResponse)  # it was not the broker that ended this one
    for batch in batches:
        batch.connections_lost += 1
        if silent:
            batch.connections_lost = min(batch.connections_lost, LOSSES_UNTIL_ALONE)
    left = [batch for batch in batches if batch.entries]
    if silent or not left:
        return
    if len(left) == 1:
        _blame_alone(node, left[0], cause)
    elif left[0].connections_lost >= LOSSES_UNTIL_ALONE:
        size = sum(batch.full_size for batch in left)
        left[0].partition.shared.limits.lower(node, size, size // 2)


def _blame_alone(node: int, batch: Batch, cause: BaseException) -> None:
    limits = batch.partition.shared.limits
    if batch.is_divisible:
        # Where batches are kept small already, one loss shows that they are not small enough.
        if batch.connections_lost >= (1 if limits.has_halved(node) else LOSSES_UNTIL_HALVED):
            limits.halve(node, batch.full_size, batch.size // 2 + BATCH_OVERHEAD)
            batch.partition.halve(batch)
        return
    too_large = limits.is_too_large(node, batch.full_size)
    if batch.connections_lost >= (LOSSES_UNTIL_HALVED if too_large else _LOSSES_UNTIL_GIVEN_UP):
        limits.message_failed(node, batch.full_size)
        give_up(batch, _lost_too_often(batch, cause))


def delivered(batch: Batch, base_offset: int, timestamp_ms: int) -> None:
    """The batch is in the log."""
    partition = batch.partition
    lowest = partition.batches[0] is batch
    batch.shows_what_is_behind()
    _settle(batch, base_offset=base_offset, timestamp_ms=timestamp_ms)
    partition.heard_at = partition.shared.outbox.now
    if lowest and not partition.in_flight:
        partition.flow()


def _lost_too_often(batch: Batch, last: BaseException) -> ProducerError:
    what = "message" if len(batch.entries) == 1 else f"batch of {len(batch.entries)} messages"
    error = RetriesExhausted(
        f"the broker ended the connection each of the last {batch.connections_lost} times that this {what} "
        f"of {len(batch.data or b'')} bytes was sent; perhaps that is more than the broker's "
        f"socket.request.max.bytes. The last time: {last}"
    )
    error.__cause__ = last
    return error


def give_up(batch: Batch, error: BaseException, *, maybe_written: bool | None = None) -> None:
    """Settle the batch as undelivered. Later batches of its partition go on under the next epoch."""
    if maybe_written is None:
        maybe_written = batch.maybe_written or batch.is_being_written
    leaves_gap = batch.is_numbered
    _settle(batch, error=error, maybe_written=maybe_written)
    if leaves_gap:
        batch.partition.restart()


# ---- one function a reaction ------------------------------------------------------------------------------


def _written(batch: Batch, response: PartitionResponse, means: Row) -> None:  # noqa: ARG001
    delivered(batch, response.base_offset, response.timestamp_ms)


def _retry(batch: Batch, response: PartitionResponse, means: Row) -> None:
    partition = batch.partition
    _retry_later(batch, refusal(response.code, response.message), means.limit)
    if means.refresh:
        partition.shared.outbox.refresh(partition.topic)
    of_this_log = not partition.log_is_gone
    if of_this_log and response.leader >= 0 and response.leader_epoch > partition.leader_epoch:
        partition.follow(response.leader, response.leader_epoch)
        if batch.failures == 1:
            # The new leader is known, so there is no need to wait (KIP-951). Only once: it may be untrue.
            batch.retry_at = partition.shared.outbox.now


def _refused(batch: Batch, response: PartitionResponse, means: Row) -> None:  # noqa: ARG001
    error = refusal(response.code, response.message)
    batch.partition.topic.troubles.add(batch.partition.index, error, final=True)
    give_up(batch, error)


def _fail_records(batch: Batch, response: PartitionResponse, means: Row) -> None:
    """The listed records fail (KIP-467: nothing of the batch was appended), the rest is sealed again.

    Unless it may be in the log from before: then it is halved until they stand alone.
    """
    bad = [index for index in response.record_errors if 0 <= index < len(batch.entries)]
    partition = batch.partition
    if not bad or (batch.pinned and not batch.is_divisible):
        return _refused(batch, response, means)
    if batch.pinned:
        partition.halve(batch)
        return None
    first = refusal(response.code, response.record_errors[min(bad)] or response.message)
    partition.topic.troubles.add(partition.index, first, final=True)
    for index in sorted(bad):
        detail = response.record_errors[index] or response.message
        _fail(batch, batch.entries[index], refusal(response.code, detail))
    kept = [entry for index, entry in enumerate(batch.entries) if index not in response.record_errors]
    partition.shorten(batch, kept)
    return partition.restart()


def _split(batch: Batch, response: PartitionResponse, means: Row) -> None:
    """Halve the batch. Until a single record is refused, later batches of the topic are made that small."""
    topic = batch.partition.topic
    count = len(batch.entries)
    if count == 1:
        topic.restore_batch_limit()
    if not batch.is_divisible:
        return _refused(batch, response, means)
    topic.lower_batch_limit(batch.size // 2)
    batch.partition.halve(batch)
    return None


def _out_of_order(batch: Batch, response: PartitionResponse, means: Row) -> None:
    """Behind an unsettled batch this only means "not yet"; at the head, that the log lacks a predecessor.

    But a deposed leader says so, too. So at the head we request metadata and send the same bytes once more.
    If the very next response is the same, this log lacks the batch and can take no old copy of it: all
    unsettled batches may be sealed again without a duplicate. (It has to be the next one: a response says
    nothing about a later transmission, which may have been appended.)
    """
    partition = batch.partition
    if not partition.shared.rules.idempotent:
        return _refused(batch, response, means)
    if partition.phase is Phase.RESTARTING and not batch.pinned:
        return None  # it follows a gap, and is about to be sealed again
    if any(earlier.pinned or partition.phase is not Phase.RESTARTING for earlier in _ahead_of(batch)):
        return None
    if batch.out_of_order == 0:
        batch.out_of_order = 1
        batch.wait_for_metadata = partition.topic.requests.made + 1
        partition.shared.outbox.refresh(partition.topic)
    elif batch.whole is not None and partition.join(batch):
        pass
    elif batch.number == 0 and batch.whole is None and not batch.may_be_there_in_part:
        # The log cannot lack what comes before the first batch: another client uses our producer id, too.
        partition.spoil_producer_id()
        give_up(batch, refusal(response.code, response.message), maybe_written=True)
    else:
        _unpin(partition, refusal(response.code, response.message))
    return None


def _unpin(partition: Partition, error: BaseException) -> None:
    """The log lacks all unsettled batches. It can take no old copy of them either, except in one case: a
    batch ahead of them was given up, and an old copy of that batch may still arrive."""
    for batch in list(partition.batches):
        if batch.pinned and (partition.absence_proves_nothing or batch.may_be_there_in_part):
            _settle(batch, error=error, maybe_written=True)
        batch.pinned = False
    partition.restart()


def _fenced(batch: Batch, response: PartitionResponse, means: Row) -> None:
    """Another client uses our producer id with a higher epoch. A new id for all, from the start."""
    if not batch.partition.shared.rules.idempotent:
        return _refused(batch, response, means)
    error = refusal(response.code, response.message)
    if batch.pinned:
        give_up(batch, error)
    else:
        _retry_later(batch, error, means.limit)
    return batch.partition.restart()


_REACTIONS: dict[Reaction, Callable[[Batch, PartitionResponse, Row], None]] = {
    Reaction.WRITTEN: _written,
    Reaction.RETRY: _retry,
    Reaction.FAIL_RECORDS: _fail_records,
    Reaction.SPLIT: _split,
    Reaction.REFUSED: _refused,
    Reaction.OUT_OF_ORDER: _out_of_order,
    Reaction.FENCED: _fenced,
}


# ---- what they share --------------------------------------------------------------------------------------


def _ahead_of(batch: Batch) -> list[Batch]:
    ahead: list[Batch] = []
    for other in batch.partition.batches:
        if other is batch:
            break
        ahead.append(other)
    return ahead


def _retry_later(batch: Batch, error: ProducerError, limit: int | None) -> None:
    shared = batch.partition.shared
    batch.partition.topic.troubles.add(batch.partition.index, error)
    batch.failures += 1
    batch.limited_failures += limit is not None
    if limit is not None and batch.limited_failures >= limit:
        return give_up(batch, error)
    if 0 <= shared.rules.max_retries < batch.failures:
        exhausted = RetriesExhausted(f"sent {batch.attempts} times in vain; the last time: {error}")
        exhausted.__cause__ = error
        return give_up(batch, exhausted)
    batch.wait_for_connection = False
    batch.pause_until(shared.outbox.now + shared.backoff(batch.failures))
    return None


def _settle(
    batch: Batch,
    *,
    base_offset: int = -1,
    timestamp_ms: int = -1,
    error: BaseException | None = None,
    maybe_written: bool = False,
) -> None:
    if maybe_written and (batch.pinned or batch.request is not None):
        batch.partition.absence_proves_nothing = True
    if batch.request is not None and not batch.request.write_started:
        batch.request.batches.remove(batch)
        if not batch.request.batches:
            batch.partition.shared.outbox.actions.append(Withdraw(batch.request))
            batch.partition.shared.gathering.end(batch.request)
    batch.request = None
    batch.partition.batches.remove(batch)
    batch.partition.topic.settle(
        batch.entries,
        partition=batch.partition.index,
        base_offset=base_offset,
        timestamp_ms=timestamp_ms,
        attempts=batch.attempts,
        error=error,
        maybe_written=maybe_written,
        size=batch.size,
    )
    # A request that is being written may keep the batch in memory for long after this.
    batch.entries, batch.data = (), None


def _fail(batch: Batch, entry: Entry, error: BaseException) -> None:
    batch.partition.topic.settle(
        [entry],
        partition=batch.partition.index,
        attempts=batch.attempts,
        error=error,
        maybe_written=batch.maybe_written,
    )
