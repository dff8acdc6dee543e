"""What was accepted, what was told, and whether the logs agree: the promises of the producer.

Told delivered: in the log exactly once, at that offset where one was told. Told not written: absent, for
ever. Told maybe: there once, or not. Everybody told, nobody twice. Accepted order kept in each partition
(but for what was told maybe). And what nobody refused for good is delivered.

Where the brokers themselves have lost something, a promise cannot hold. What is excused is that very record
that an unclean election cut off, and that very record that was taken by a broker which had forgotten the
producer (its state had expired, was cut off, or belonged to a topic that was deleted and made anew under
its name). All of it is counted, so that excuses cannot hide a bug.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from math import inf
from typing import NamedTuple

from tests.simulation.cluster import Cluster, Partition, Piece, Place, Topic
from tests.simulation.log import Lapse, Sealed
from tests.simulation.setting import Setting
from trio_kprod._core._batch import LAST_EPOCH
from trio_kprod._core._error_codes import PartitionResponse
from trio_kprod._core._expiry import EXPIRY_PACE
from trio_kprod._core._metadata import TopicMetadata
from trio_kprod._core._reports import Settled
from trio_kprod._errors import (
    DeliveryAborted,
    DeliveryTimedOut,
    PartitioningFailed,
    Refused,
    RetriesExhausted,
    UnknownTopic,
)
from trio_kprod._messages import ACCEPTED_AT, BATCH_OVERHEAD, KEY, PARTITION, VALUE, Entry

_TOO_LARGE = {10, 18}
_BAD_RECORDS = {32, 87}
_FOR_GOOD = {17, 29, 31, *_TOO_LARGE, *_BAD_RECORDS}
_AFTER_SOME = {-1, 2, 9999}
_TELL_NOTHING = {56, -1, 9999}
_OUT_OF_ORDER = 45

_ROUNDING = 1e-9  # of sums of seconds


class Broken(AssertionError):
    """A promise was broken."""


class Outcome(NamedTuple):
    settled: Settled
    place: int  # in the batch


class Copy(NamedTuple):
    """Where a value stands in a log."""

    topic: Topic
    partition: int
    offset: int
    lapse: Lapse | None
    producer_id: int


class Part(NamedTuple):
    """A batch, or a part of one, by its chain and the number of its messages."""

    producer_id: int
    epoch: int
    length: int


class History:
    """The history of one run."""

    def __init__(self, setting: Setting, cluster: Cluster) -> None:
        self.setting = setting
        self.cluster = cluster
        self.accepted: dict[bytes, Entry] = {}
        self.numbers: dict[bytes, int] = {}  # in the order in which they were accepted
        self.submitted_at: dict[bytes, float] = {}
        self.outcomes: dict[bytes, Outcome] = {}
        self.refusals: dict[bytes, set[int]] = {}  # the errors that brokers answered
        self.refused_alone: set[bytes] = set()  # as too large
        self.topic_refusals: dict[str, set[int]] = {}
        self.ids_refused = False
        self.stopped = False
        self.missing_since: dict[str, float] = {}  # or told of as it was, not as it is
        self.doubted: set[str] = set()  # topics of which only old news was told for long
        self.sent_over: dict[bytes, object] = {}  # with acks=0: the connection to which it was written
        self.must_arrive: set[bytes] = set()  # sent when all faults had ended, and the client knew of it
        self.losses: Counter[bytes] = Counter()  # connections that ended while it was under way
        self.too_large = inf  # the smallest message given up for its losses
        self.unsure: Counter[bytes] = Counter()  # answers that did not tell whether it was written, or none
        self.unsure_parts: dict[bytes, set[Part]] = {}  # in which batches those began with it
        self.gaps: set[Place] = set()  # where a batch was given up that may have been written
        self.excused: Counter[str] = Counter()
        self.before = 0.0  # when the client was last told the time

    @property
    def complete(self) -> bool:
        return len(self.outcomes) == len(self.accepted)

    # ---- while it happens --------------------------------------------------------------------------------

    def accept(self, messages: Iterable[Entry], now: float) -> None:
        for message in messages:
            assert message[VALUE] is not None
            self.numbers[message[VALUE]] = len(self.accepted)
            self.accepted[message[VALUE]] = message
            self.submitted_at[message[VALUE]] = now

    def refused(self, sealed: Sealed, answer: PartitionResponse) -> None:
        """A broker's answer reached the client."""
        code, values = answer.code, sealed.values
        for value in values:
            self.refusals.setdefault(value, set()).add(code)
        if answer.base_offset >= 0 or code in _TELL_NOTHING:
            self.unanswered(sealed)
        if code in _TOO_LARGE and len(values) == 1:
            self.refused_alone.add(values[0])

    def written(self, pieces: Iterable[Piece], connection: object) -> None:
        """With acks=0: a request was written whole. All it takes to be told delivered."""
        for piece in pieces:
            for value in piece.sealed.values:
                if value in self.sent_over:
                    raise Broken(f"written whole a second time: {_text(value)}")
                self.sent_over[value] = connection

    def lost(self, sealed: Sealed) -> None:
        """A connection ended over which it was sent, and no answer came."""
        self.losses.update(sealed.values)
        self.unanswered(sealed)

    def unanswered(self, sealed: Sealed) -> None:
        """No answer told whether it was written."""
        self.unsure.update(sealed.values)
        part = Part(sealed.producer_id, sealed.epoch, len(sealed.values))
        self.unsure_parts.setdefault(sealed.values[0], set()).add(part)

    def described(self, name: str, metadata: TopicMetadata | None, now: float) -> None:
        """A broker's word about a topic reached the client."""
        if metadata is not None and metadata.code in _FOR_GOOD:
            self.topic_refusals.setdefault(name, set()).add(metadata.code)
        if metadata is not None and metadata == self.cluster.description(name):
            self.missing_since.pop(name, None)
        else:
            since = self.missing_since.setdefault(name, now)
            if now - since >= self.setting.rules.topic_timeout - _ROUNDING:
                self.doubted.add(name)

    def tell(self, settled: Settled, now: float) -> None:
        """The program is told of an outcome."""
        for index, entry in enumerate(settled.entries):
            value = entry[VALUE] or b""
            if value in self.outcomes:
                raise Broken(f"told twice: {_text(value)}")
            if value not in self.accepted:
                raise Broken(f"told, and never accepted: {_text(value)}")
            self.outcomes[value] = Outcome(settled, index)
            if self.setting.acks == 0 and settled.error is None and value not in self.sent_over:
                raise Broken(f"told delivered, and not written: {_text(value)}")
        if settled.error is not None:
            self._justify(settled, now)
        if self.setting.rules.delivery_timeout < inf:
            self._check_time(settled)

    def _check_time(self, settled: Settled) -> None:
        for entry in settled.entries:
            due = entry[ACCEPTED_AT] + self.setting.rules.delivery_timeout
            latest = max(due, self.submitted_at[entry[VALUE] or b""]) + EXPIRY_PACE
            if self.before > latest + _ROUNDING:
                raise Broken(f"told too late: {_text(entry[VALUE])}, due at {due:g}")

    # ---- why a message may be given up -------------------------------------------------------------------

    def _justify(self, settled: Settled, now: float) -> None:
        error, rules = settled.error, self.setting.rules
        place = Place(settled.topic, settled.partition)
        if isinstance(error, Refused):
            good = all(self._may_be_refused(entry, error.code, settled, place) for entry in settled.entries)
        elif isinstance(error, DeliveryTimedOut):
            good = now >= min(entry[ACCEPTED_AT] for entry in settled.entries) + rules.delivery_timeout
        elif isinstance(error, RetriesExhausted):
            good = rules.max_retries >= 0 or self._may_end_connections(settled)
        elif isinstance(error, DeliveryAborted):
            good = self.stopped
        elif isinstance(error, UnknownTopic):
            missing_for = now - self.missing_since.get(settled.topic, inf)
            good = missing_for >= rules.topic_timeout - _ROUNDING
            if not good and self._made_anew(settled.topic):
                # For a while it was not clear which of both is the old one.
                good = True
                self.excused["unknown topic, made anew"] += len(settled.entries)
        else:
            good = isinstance(error, PartitioningFailed) and self._made_anew(settled.topic)
        if not good:
            raise Broken(f"given up without reason: {_texts(settled)}: {error!r}")
        if settled.maybe_written:
            self.gaps.add(place)

    def _may_end_connections(self, settled: Settled) -> bool:
        """Whether it was lost so often that this may be its fault: a message by itself, or a batch of which
        a part was out of order."""
        values = [entry[VALUE] or b"" for entry in settled.entries]
        alone = len(values) == 1 or self._out_of_order_once(settled)
        again, at_first = self.setting.losses
        large = 2 * (settled.size + BATCH_OVERHEAD) >= self.too_large + BATCH_OVERHEAD
        enough = again if large else at_first
        self.too_large = min(self.too_large, settled.size)
        return alone and all(self.losses[value] >= enough for value in values)

    def _made_anew(self, name: str) -> bool:
        return sum(topic.name == name for topic in self.cluster.history) > 1

    def _may_be_refused(self, entry: Entry, code: int, settled: Settled, place: Place) -> bool:
        value = entry[VALUE] or b""
        told = self.refusals.get(value, set())
        if code == _OUT_OF_ORDER:
            return settled.maybe_written and (self._behind_a_gap(place) or self._halved(settled))
        if code == 31 and self.ids_refused and not settled.maybe_written:
            return True
        if code in self.topic_refusals.get(settled.topic, ()):
            return True
        if code in told and code in _TOO_LARGE | _BAD_RECORDS and not self._out_of_order_once(settled):
            # A refused message fails alone.
            return value in (self.refused_alone if code in _TOO_LARGE else self.cluster.bad)
        return code in told and code in _FOR_GOOD | _AFTER_SOME

    def _out_of_order_once(self, settled: Settled) -> bool:
        """Whether its first part perhaps was, so it is only sent as a whole: the log may have it so."""
        return _OUT_OF_ORDER in self.refusals.get(settled.entries[0][VALUE] or b"", ())

    def _behind_a_gap(self, place: Place) -> bool:
        """Whether a batch was given up there that may yet be written, and an old copy of this one after it.

        (Or whether the leader that calls it out of order may be one that was deposed long ago.)
        """
        doubtful = not self.setting.topic_ids or place.topic in self.doubted
        excused = place in self.gaps or doubtful
        self.excused["maybe, behind one that was given up"] += excused
        return excused

    def _halved(self, settled: Settled) -> bool:
        """Whether both a batch and its first part may be in the log, as no answer came to either. If the log
        lacks a predecessor, an old copy of the part may still be appended by itself."""
        first = settled.entries[0][VALUE] or b""
        parts = self.unsure_parts.get(first, set())
        excused = len(parts) > len({(part.producer_id, part.epoch) for part in parts})
        self.excused["maybe, and halved"] += excused
        return excused

    # ---- afterwards --------------------------------------------------------------------------------------

    def check(self) -> None:
        """Raise `Broken` if any promise was."""
        if not self.complete:
            untold = [value for value in self.accepted if value not in self.outcomes]
            raise Broken(f"never told: {', '.join(map(_text, untold))}")
        copies = self._copies()
        for value, outcome in self.outcomes.items():
            where = copies.get(value, [])
            if outcome.settled.error is None:
                self._check_delivered(value, outcome, where)
            elif where and not outcome.settled.maybe_written:
                raise Broken(f"in the log, and told not written: {_text(value)}")
            if len(where) > 1:
                self._check_once(value, where)
        for topic in self.cluster.history:
            for partition in topic.partitions:
                self._check_order(partition, copies)

    def _copies(self) -> dict[bytes, list[Copy]]:
        copies: dict[bytes, list[Copy]] = {}
        for topic in self.cluster.history:
            for index, partition in enumerate(topic.partitions):
                offset = 0
                for sealed, lapse in partition.log.batches:
                    for value in sealed.values:
                        copy = Copy(topic, index, offset, lapse, sealed.producer_id)
                        copies.setdefault(value, []).append(copy)
                        offset += 1
        return copies

    def _check_delivered(self, value: bytes, outcome: Outcome, copies: list[Copy]) -> None:
        settled, place = outcome
        if self.setting.acks == 0:
            return self._check_written(value, copies)
        offset = settled.base_offset + place if settled.base_offset >= 0 else None
        for copy in copies:
            if (copy.topic.name, copy.partition) == settled[:2] and offset in (None, copy.offset):
                return None
        if not self._lost_by_brokers(value, settled):
            raise Broken(f"told delivered, and not there: {_text(value)}, offset {offset}")
        self.excused["cut off"] += 1
        return None

    def _check_written(self, value: bytes, copies: list[Copy]) -> None:
        """With acks=0 it was told when it was written; a broker may refuse it, or never read it. But once all
        is well, and the client has had the time to hear of it, nothing may be lost any more."""
        if not copies:
            self.excused["written, and lost"] += 1
            if value in self.must_arrive:
                raise Broken(f"lost though all is well: {_text(value)}")

    def _lost_by_brokers(self, value: bytes, settled: Settled) -> bool:
        for topic in self.cluster.history:
            if topic.name == settled.topic and settled.partition < len(topic.partitions):
                partition = topic.partitions[settled.partition]
                if value in partition.cut or (self.setting.acks == 1 and value in partition.dropped):
                    return True
        return False

    def _check_once(self, value: bytes, copies: list[Copy]) -> None:
        if self.setting.acks != -1:
            self._check_transmissions(value, copies)
            return
        for topic in {copy.topic for copy in copies}:
            here = [copy for copy in copies if copy.topic is topic]
            if len(here) > 1:
                lapses = [
                    copy.lapse
                    for place, copy in enumerate(here)
                    if copy.lapse and self._may_take_again(copy, here[:place])
                ]
                if any(value in topic.partitions[copy.partition].log.unknown for copy in here):
                    lapses.append(Lapse.EXPIRED)
                if not lapses:
                    raise Broken(f"{len(here)} times in the log: {_text(value)}")
                self.excused[f"duplicate, {lapses[0].name.lower()}"] += 1

    def _check_transmissions(self, value: bytes, copies: list[Copy]) -> None:
        """Without idempotence a retry may duplicate: one for each answer that did not come, or did not tell
        whether it was written. With acks=0 there is no answer, and no retry of what was written."""
        if len(copies) > 1 + self.unsure[value] or self.setting.acks == 0:
            raise Broken(f"{len(copies)} times in the log: {_text(value)}")
        self.excused["duplicate, without idempotence"] += 1

    def _may_take_again(self, copy: Copy, earlier: list[Copy]) -> bool:
        """The next epoch of the same id would have kept it out; a new id, due after the last one, cannot."""
        same_id = all(one.producer_id == copy.producer_id for one in earlier)
        return same_id or self.setting.last_epoch < LAST_EPOCH

    def _check_order(self, partition: Partition, copies: dict[bytes, list[Copy]]) -> None:
        """Delivered messages stand as accepted; those without a partition among themselves."""
        last: dict[bool, int] = {True: -1, False: -1}
        latest: dict[bool, bytes] = {True: b"", False: b""}
        last_lapsed = last.copy()
        seen: set[bytes] = set()
        for sealed, lapse in partition.log.batches:
            for value in sealed.values:
                if value in seen or self.outcomes[value].settled.error is not None:
                    continue
                seen.add(value)
                message = self.accepted[value]
                keyless = message[KEY] is None and message[PARTITION] is None
                number = self.numbers[value]
                if number < last_lapsed[keyless] or (lapse and number < last[keyless]):
                    self.excused["out of order"] += 1
                if lapse is not None:
                    last_lapsed[keyless] = max(number, last_lapsed[keyless])
                elif number > last[keyless]:
                    last[keyless], latest[keyless] = number, value
                elif self.setting.acks == 0 and self._over_different_connections(value, latest[keyless]):
                    self.excused["out of order, over another connection"] += 1
                elif not self._lost_its_place(value, partition, copies[value]):
                    raise Broken(f"out of order: {_text(value)}")

    def _over_different_connections(self, *values: bytes) -> bool:
        """With acks=0 nobody waits for one connection before writing to another."""
        return len({id(self.sent_over[value]) for value in values}) > 1

    def _lost_its_place(self, value: bytes, partition: Partition, copies: list[Copy]) -> bool:
        """Whether this stands late as the copy in its place was lost, and an old request landed since."""
        if self.setting.acks == -1:
            return value in partition.cut
        if self.setting.acks == 0:
            return False
        return value in partition.dropped or len({copy.topic for copy in copies}) > 1


def _text(value: bytes | None) -> str:
    return (value or b"").decode()


def _texts(settled: Settled) -> str:
    return " ".join(_text(entry[VALUE]) for entry in settled.entries)
