"""Bugs planted in the produce core, to see that the simulation finds them.

``python -m tests.simulation.planted [NAME ...] [--limit N] [--ranges R] [--first SEED]`` plants one after
the other and tells how many seeds each needed until a promise was seen broken, and which. Those that need
thousands are rare (`Bug.within` is None): they are tried by this command only, not by the tests, since any
change of the simulation or the core deals other histories for the same seeds.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, replace
from math import inf
from statistics import median
from typing import Any, NamedTuple
from unittest.mock import patch
from weakref import WeakKeyDictionary

from tests.simulation.run import Broken, fast_sealing, run
from trio_kprod._core import _core, _responses
from trio_kprod._core._actions import Action, Send
from trio_kprod._core._batch import Batch, Chain, Request
from trio_kprod._core._core import ProduceCore
from trio_kprod._core._error_codes import TABLE, PartitionResponse, Reaction, Row, may_have_appended
from trio_kprod._core._outbox import Outbox
from trio_kprod._core._partition import Partition, Phase
from trio_kprod._core._shared import Rules
from trio_kprod._core._topic import Topic
from trio_kprod._messages import Entry

Plant = Callable[[], AbstractContextManager[object]]
Judge = Callable[[Batch, PartitionResponse, Row], None]

_NAMES, _SAID = 68, 100  # columns of the table


@dataclass(frozen=True)
class Bug:
    """One planted bug; `within` so many seeds from 0 on the tests want it found. None if it is rare.

    `acks` is that of the runs in which it is looked for.
    """

    name: str
    plant: Plant
    within: int | None
    acks: int

    @property
    def harm(self) -> str:
        return " ".join((self.plant.__doc__ or "").split())


BUGS: dict[str, Bug] = {}


def _bug(within: int | None = 1500, acks: int = -1) -> Callable[[Plant], Plant]:
    def register(plant: Plant) -> Plant:
        BUGS[plant.__name__] = Bug(plant.__name__, plant, within, acks)
        return plant

    return register


def _judge(reaction: Reaction, judge: Judge) -> AbstractContextManager[object]:
    """Replace what is done at one reaction."""
    return patch.dict(_responses._REACTIONS, {reaction: judge})


@contextmanager
def _both(*patches: AbstractContextManager[object]) -> Iterator[None]:
    with ExitStack() as stack:
        for one in patches:
            stack.enter_context(one)
        yield


# ---- what an answer means ----------------------------------------------------------------------------------


@_bug()
def a_refusal_clears_perhaps() -> AbstractContextManager[object]:
    """A refusal is taken to speak of every transmission: "not written" is told of what is in the log."""
    original = _responses.responded

    def answered(batch: Batch, answer: PartitionResponse) -> None:
        if TABLE.get(answer.code) and answer.code not in (0, 46) and not may_have_appended(answer):
            batch.maybe_written = batch.pinned = False
        original(batch, answer)

    return patch.object(_core, "responded", answered)


@_bug(within=None)
def not_leader_always_means_not_written() -> AbstractContextManager[object]:
    """Code 6 after the append is taken for a refusal before it: "not written" of what is in the log."""
    return patch.object(
        _responses, "may_have_appended", lambda answer: answer.code != 6 and may_have_appended(answer)
    )


@_bug(within=None)
def a_batch_that_may_be_written_is_split() -> AbstractContextManager[object]:
    """Resent and refused as too large, it is halved although it is in the log: duplicates."""
    original = _responses._REACTIONS[Reaction.SPLIT]

    def split(batch: Batch, answer: PartitionResponse, means: Row) -> None:
        if len(batch.entries) > 1:
            batch.maybe_written = batch.pinned = False
        original(batch, answer, means)

    return _judge(Reaction.SPLIT, split)


@_bug(within=None)
def the_first_out_of_order_is_believed() -> AbstractContextManager[object]:
    """A deposed leader's "out of order" is enough to seal anew what is in the log: duplicates."""
    original = _responses._REACTIONS[Reaction.OUT_OF_ORDER]

    def out_of_order(batch: Batch, answer: PartitionResponse, means: Row) -> None:
        batch.out_of_order = 1
        original(batch, answer, means)

    return _judge(Reaction.OUT_OF_ORDER, out_of_order)


@_bug()
def an_old_answer_settles_a_new_batch() -> AbstractContextManager[object]:
    """An answer to a batch given up meanwhile is taken for the next one's: delivered is told of the wrong."""
    original = ProduceCore.responded

    def answered(
        self: ProduceCore, request: Request, answers: Mapping[tuple[str, int], PartitionResponse]
    ) -> None:
        for place, batch in enumerate(request.batches):
            if batch.request is not request:
                for other in batch.partition.batches:
                    if other.request is not None:
                        request.batches[place], other.request = other, request
                        break
        original(self, request, answers)

    return patch.object(ProduceCore, "responded", answered)


# ---- chains ------------------------------------------------------------------------------------------------


@_bug()
def sealed_anew_in_the_same_epoch() -> AbstractContextManager[object]:
    """After a refusal the rest takes the refused one's sequences: an old copy still lands, a duplicate."""
    original, original_delivered = Partition._next_chain, _responses.delivered
    reached: WeakKeyDictionary[Partition, tuple[Chain | None, int]] = WeakKeyDictionary()

    def delivered(batch: Batch, base_offset: int, timestamp_ms: int) -> None:
        reached[batch.partition] = batch.partition.chain, batch.sequence + len(batch.entries)
        original_delivered(batch, base_offset, timestamp_ms)

    def next_chain(self: Partition) -> Chain | None:
        chain = original(self)
        if chain is None or self.chain is None or chain.producer_id != self.chain.producer_id:
            return chain
        again = Chain(chain.producer_id, self.chain.epoch)
        of_chain, sequence = reached.get(self, (None, 0))
        again.next_sequence = sequence if of_chain is self.chain else 0
        reached[self] = again, again.next_sequence
        return again

    return _both(
        patch.object(Partition, "_next_chain", next_chain), patch.object(_responses, "delivered", delivered)
    )


@_bug(within=None)
def a_fresh_producer_id_instead_of_the_next_epoch() -> AbstractContextManager[object]:
    """A new id fences nothing: old copies land after what was sent later, and out of order."""
    original = Partition._next_chain

    def next_chain(self: Partition) -> Chain | None:
        self.spoil_producer_id()
        return original(self)

    return patch.object(Partition, "_next_chain", next_chain)


@_bug(within=None)
def the_window_counts_batches() -> AbstractContextManager[object]:
    """Five unsettled ones may be far apart: brokers forget the first, and call it out of order."""
    originals = {name: getattr(Partition, name) for name in ("may_form", "next_batch")}

    def counting(name: str) -> AbstractContextManager[object]:
        def method(self: Partition, *args: Any) -> Any:
            if self.batches and self.chain is not None:
                first = self.batches[0].number
                for number, batch in enumerate(self.batches, first):
                    batch.number = number
                self.chain.next_number = first + len(self.batches)
            return originals[name](self, *args)

        return patch.object(Partition, name, method)

    return _both(*map(counting, originals))


@_bug()
def several_in_flight_right_after_a_new_epoch() -> AbstractContextManager[object]:
    """A broker without state takes the second for the first, and never the first: lost."""
    original = Partition._restart

    def restart(self: Partition) -> bool:
        done = original(self)
        if done:
            self.phase = Phase.FLOWING
        return done

    return patch.object(Partition, "_restart", restart)


@_bug()
def sealed_anew_before_predecessors_are_settled() -> AbstractContextManager[object]:
    """The next epoch begins with what may be in the log already: duplicates."""
    original = Partition._restart

    def restart(self: Partition) -> bool:
        gone, self.log_is_gone = self.log_is_gone, True
        done = original(self)
        if not done:
            self.log_is_gone = gone
        return done

    return patch.object(Partition, "_restart", restart)


@_bug(within=None)
def the_chain_is_dropped_when_metadata_lacks_the_topic() -> AbstractContextManager[object]:
    """Sequences begin at 0 again and are taken for duplicates: acknowledged, and lost."""
    original = Topic._missing

    def missing(self: Topic, *args: Any) -> None:
        for partition in self.partitions:
            if not partition.batches:
                partition.chain = None
        original(self, *args)

    return patch.object(Topic, "_missing", missing)


@_bug()
def a_wrong_sequence_after_a_split() -> AbstractContextManager[object]:
    """The second half takes the first one's sequences, and for its duplicate: acknowledged, and lost."""
    original = Batch.part

    def part(self: Batch, start: int, stop: int) -> Batch:
        made = original(self, start, stop)
        made.sequence = self.sequence
        return made

    return patch.object(Batch, "part", part)


@_bug()
def halved_under_a_new_epoch() -> AbstractContextManager[object]:
    """What ended its connections is sealed anew in halves although it may be in the log: duplicates."""
    original = Partition.halve

    def halve(self: Partition, batch: Batch) -> Batch:
        batch.pinned = False
        first = original(self, batch)
        self.restart()
        return first

    return patch.object(Partition, "halve", halve)


@_bug()
def a_part_out_of_order_is_believed() -> AbstractContextManager[object]:
    """The log has the whole, not the part, and the part is sealed anew under the next epoch: duplicates."""

    def join(self: Partition, first: Batch) -> bool:
        first.whole = first.rest = None
        return False

    return patch.object(Partition, "join", join)


@_bug(within=None)
def a_part_that_may_be_there_is_forgotten() -> AbstractContextManager[object]:
    """Both the whole and its first part were lost; the part lands late, and its messages once more."""
    original = Partition.join

    def join(self: Partition, first: Batch) -> bool:
        first.unanswered = first.may_be_there_in_part = False
        return original(self, first)

    return patch.object(Partition, "join", join)


@_bug()
def the_rest_is_cleared_before_the_first_part_is_there() -> AbstractContextManager[object]:
    """It is told as not written although the whole is in the log, or sealed anew: duplicates."""
    original = Partition.halve

    def halve(self: Partition, batch: Batch) -> Batch:
        first = original(self, batch)
        first.shows_what_is_behind()
        return first

    return patch.object(Partition, "halve", halve)


@_bug(within=None)
def what_was_given_up_in_flight_is_forgotten() -> AbstractContextManager[object]:
    """A copy of it may land yet, and then one of the next, which was sealed anew meanwhile: a duplicate."""
    return patch.object(
        Partition,
        "absence_proves_nothing",
        property(lambda self: False, lambda self, value: None),
        create=True,
    )


@_bug(within=None)
def the_leader_epoch_goes_back() -> AbstractContextManager[object]:
    """A deposed leader is asked again, and believed when it says that its log lacks what another took."""
    original = Partition.follow

    def follow(self: Partition, leader: int, epoch: int) -> bool:
        self.leader_epoch = min(self.leader_epoch, epoch)
        return original(self, leader, epoch)

    return patch.object(Partition, "follow", follow)


@_bug(within=None)
def the_leader_epoch_goes_back_and_the_first_out_of_order_is_believed() -> AbstractContextManager[object]:
    """Either saves what the other breaks; together they duplicate what the newer leader has."""
    return _both(the_leader_epoch_goes_back(), the_first_out_of_order_is_believed())


@_bug(within=None)
def a_hint_about_a_log_that_is_gone_is_followed() -> AbstractContextManager[object]:
    """Its leader epoch is above any of the new log's, so whoever leads that is never sent to: stuck."""
    original = _responses._REACTIONS[Reaction.RETRY]

    def retry(batch: Batch, answer: PartitionResponse, means: Row) -> None:
        gone, batch.partition.log_is_gone = batch.partition.log_is_gone, False
        original(batch, answer, means)
        batch.partition.log_is_gone = gone

    return _judge(Reaction.RETRY, retry)


# ---- outcomes and order ------------------------------------------------------------------------------------


@_bug()
def an_outcome_is_dropped() -> AbstractContextManager[object]:
    """Of a batch that fails the last message is left out: its caller waits for ever."""
    original = Topic.settle

    def settle(self: Topic, entries: Sequence[Entry], **how: Any) -> None:
        left_out = len(entries) > 1 and how.get("error") is not None
        original(self, entries[:-1] if left_out else entries, **how)

    return patch.object(Topic, "settle", settle)


@_bug()
def an_odd_split_loses_its_middle() -> AbstractContextManager[object]:
    """Neither half has it: its caller waits for ever."""
    original = Batch.part

    def part(self: Batch, start: int, stop: int) -> Batch:
        odd = start and len(self.entries) % 2
        return original(self, start + 1 if odd and stop - start > 1 else start, stop)

    return patch.object(Batch, "part", part)


@_bug()
def a_batch_is_settled_twice() -> AbstractContextManager[object]:
    """An answer to what was given up meanwhile tells its outcome a second time, and perhaps another."""
    original, settle = ProduceCore.responded, _responses._settle

    def keep_entries(batch: Batch, **how: Any) -> None:
        entries = batch.entries
        settle(batch, **how)
        batch.entries = entries

    def answered(
        self: ProduceCore, request: Request, answers: Mapping[tuple[str, int], PartitionResponse]
    ) -> None:
        for batch in request.batches:
            answer = answers.get((batch.partition.topic.name, batch.partition.index))
            if batch.request is not request and answer is not None and answer.code == 0:
                batch.partition.topic.settle(batch.entries, base_offset=answer.base_offset)
        original(self, request, answers)

    bug = ExitStack()
    bug.enter_context(patch.object(_responses, "_settle", keep_entries))
    bug.enter_context(patch.object(ProduceCore, "responded", answered))
    return bug


@_bug()
def one_partition_hides_another() -> AbstractContextManager[object]:
    """Progress of any partition counts for the whole topic: a dead one takes the room of all others."""
    original = Topic.made_progress

    def made_progress(self: Topic, partition: int, *, acknowledged: bool) -> None:
        for part in self._parts():
            part.move_on(self.shared.outbox.now, still_waits=part.waits_since is not None)
        original(self, partition, acknowledged=acknowledged)

    return patch.object(Topic, "made_progress", made_progress)


@_bug()
def a_connection_ends_every_pause() -> AbstractContextManager[object]:
    """A leader that refuses and closes gets requests as fast as it can do that."""
    original = _responses._retry_later

    def retry_later(batch: Batch, *args: Any) -> None:
        original(batch, *args)
        batch.retry_at = batch.partition.shared.outbox.now

    return patch.object(_responses, "_retry_later", retry_later)


@_bug()
def what_is_given_up_stays_in_the_queue() -> AbstractContextManager[object]:
    """It is written later, although it was reported, and holds memory that nothing accounts for."""
    original = _responses._settle

    def settle(batch: Batch, **how: Any) -> None:
        request = batch.request
        original(batch, **how)
        if request is not None and batch not in request.batches:
            request.batches.append(batch)

    return patch.object(_responses, "_settle", settle)


@_bug()
def a_retried_batch_goes_behind_the_next() -> AbstractContextManager[object]:
    """The order of the log is not that of the calls."""
    original = _responses._retry_later

    def retry_later(batch: Batch, *args: Any) -> None:
        original(batch, *args)
        batches = batch.partition.batches
        if batch in batches and batches[-1] is not batch:
            place = batches.index(batch)
            other = batches[place + 1]
            batches[place], batches[place + 1] = other, batch
            batch.number, other.number = other.number, batch.number

    return patch.object(_responses, "_retry_later", retry_later)


# ---- requests ----------------------------------------------------------------------------------------------


def _merged(actions: list[Action]) -> list[Action]:
    first: dict[int, Request] = {}
    kept: list[Action] = []
    for action in actions:
        if isinstance(action, Send) and first.setdefault(action.request.node, action.request) is not (
            action.request
        ):
            target = first[action.request.node]
            target.batches += action.request.batches
            for batch in action.request.batches:
                batch.request = target
        else:
            kept.append(action)
    return kept


@_bug()
def a_partition_stands_twice_in_a_request() -> AbstractContextManager[object]:
    """Brokers process the last and drop the first silently: it waits for ever, or order is lost."""
    original = ProduceCore.actions
    return patch.object(ProduceCore, "actions", lambda self: _merged(original(self)))


@_bug()
def a_request_exceeds_its_limit() -> AbstractContextManager[object]:
    """The broker closes the connection without an answer, again and again."""
    original = ProduceCore._pack

    def pack(self: ProduceCore, batches: Iterable[Batch]) -> list[Request]:
        rules = self._shared.rules
        self._shared.rules = replace(rules, max_request_size=2**31)
        requests = original(self, batches)
        self._shared.rules = rules
        return requests

    return patch.object(ProduceCore, "_pack", pack)


# ---- without idempotence -----------------------------------------------------------------------------------


@_bug(acks=0)
def a_leader_that_closes_is_not_asked_about() -> AbstractContextManager[object]:
    """With acks=0 a deposed leader can say no more than that, and everything sent to it is lost, for ever."""
    original = ProduceCore.lost

    def lost(self: ProduceCore, *args: Any) -> None:
        with patch.object(Outbox, "refresh", lambda *_: None):
            original(self, *args)

    return patch.object(ProduceCore, "lost", lost)


@_bug(acks=0)
def old_news_is_doubted_for_ever() -> AbstractContextManager[object]:
    """With acks=0 nothing waits, so the topic is not asked about again: everything sent to it is lost."""
    original = Topic.learn

    def learn(self: Topic, *args: Any) -> None:
        original(self, *args)
        self._is_doubting = False

    return patch.object(Topic, "learn", learn)


@_bug(acks=0)
def what_was_written_in_part_is_told_delivered() -> AbstractContextManager[object]:
    """The rest of the request never leaves, so no broker has any of it."""
    original = ProduceCore.lost

    def lost(self: ProduceCore, node: int, requests: Iterable[Request], cause: BaseException) -> None:
        for request in requests:
            if request.write_started:
                self.sent(request)
        original(self, node, requests, cause)

    return patch.object(ProduceCore, "lost", lost)


@_bug(acks=1)
def what_was_acknowledged_is_sent_again() -> AbstractContextManager[object]:
    """With acks=1 no broker knows a duplicate, so each transmission needs a reason."""
    original = _responses.delivered

    def delivered(batch: Batch, base_offset: int, timestamp_ms: int) -> None:
        if batch.attempts == 2:
            batch.retry_at = 0.0
        else:
            original(batch, base_offset, timestamp_ms)

    return patch.object(_responses, "delivered", delivered)


@_bug(acks=1)
def without_idempotence_two_are_in_flight() -> AbstractContextManager[object]:
    """The first fails and is sent again behind the second: out of order."""
    return patch.object(Rules, "window", 2)


# ---- nothing stuck -----------------------------------------------------------------------------------------


@_bug()
def a_retry_timer_is_lost() -> AbstractContextManager[object]:
    """A batch that waits for its next attempt is not thought of again."""
    original = _responses._retry_later

    def retry_later(batch: Batch, *args: Any) -> None:
        with patch.object(Outbox, "call_at", lambda *_: None):
            original(batch, *args)

    return patch.object(_responses, "_retry_later", retry_later)


@_bug()
def metadata_that_failed_is_not_asked_for_again() -> AbstractContextManager[object]:
    """After one unanswered question a new topic's messages wait for ever."""
    original = ProduceCore._pace_requests

    def ask_again_later(self: ProduceCore, topic: Topic, *, failed: bool = False) -> None:
        if not failed:
            original(self, topic)

    return patch.object(ProduceCore, "_pace_requests", ask_again_later)


@_bug()
def a_connection_that_failed_is_not_asked_for_again() -> AbstractContextManager[object]:
    """After one failed attempt a broker is never connected to."""
    original = ProduceCore.unreachable

    def unreachable(self: ProduceCore, node: int) -> None:
        original(self, node)
        self._asked_to_connect.add(node)

    return patch.object(ProduceCore, "unreachable", unreachable)


@_bug()
def a_producer_id_that_failed_is_not_asked_for_again() -> AbstractContextManager[object]:
    """After one unanswered question nothing is ever sent."""
    return patch.object(ProduceCore, "_end_id_pause", lambda *_: None)


# ---- the hunt ----------------------------------------------------------------------------------------------


class Found(NamedTuple):
    """After how many seeds a promise was broken, and how; after how many the core stumbled by itself."""

    broken: float
    said: str
    stumbled: float
    error: str


def hunt(bug: Bug, seeds: Iterable[int]) -> Found:
    """Run seeds until a promise is broken that is kept without the bug."""
    stumbled, error, tried = inf, "", 0
    with fast_sealing():
        for tried, seed in enumerate(seeds, 1):
            with bug.plant():
                exception = _attempt(seed, bug.acks)
            if isinstance(exception, Broken) and _attempt(seed, bug.acks) is None:
                return Found(tried, str(exception), stumbled, error)
            if exception is not None and not isinstance(exception, Broken) and stumbled == inf:
                stumbled, error = tried, repr(exception)
    return Found(inf, f"not found in {tried}", stumbled, error)


def _attempt(seed: int, acks: int) -> Exception | None:
    try:
        run(seed, acks)
    except Exception as exception:
        return exception
    return None


def report(bug: Bug, ranges: Sequence[range]) -> str:
    """A row of the table: the median over the ranges, each of them, and what was said first."""
    hunts = [hunt(bug, seeds) for seeds in ranges]
    each = " ".join(f"{found.broken:g}" for found in hunts)
    said = min(hunts, key=lambda found: found.broken).said[:_SAID]
    line = f"{bug.name:{_NAMES}} {median(found.broken for found in hunts):6g}  {each:24}  {said}"
    stumbled = min(hunts, key=lambda found: found.stumbled)
    if stumbled.error:
        line += f"\n{'':{_NAMES}} {stumbled.stumbled:6g}  by an internal error: {stumbled.error[:_SAID]}"
    return line


def main(arguments: Sequence[str]) -> None:
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.planted")
    parser.add_argument("names", nargs="*", metavar="NAME", help="of planted bugs (default: all)")
    parser.add_argument("--limit", type=int, default=2000, help="seeds to try of each")
    parser.add_argument("--ranges", type=int, default=1, help="how often, with other seeds each time")
    parser.add_argument("--first", type=int, default=0, help="the seed to begin with")
    given = parser.parse_args(arguments)
    unknown = set(given.names) - set(BUGS)
    if unknown:
        parser.error(f"there is no {', '.join(sorted(unknown))}; there are:\n" + "\n".join(BUGS))
    starts = [given.first + step * given.limit for step in range(given.ranges)]
    print(f"{'planted bug':{_NAMES}} median  {'seeds needed':24}  what was said")
    for name in given.names or BUGS:
        print(report(BUGS[name], [range(start, start + given.limit) for start in starts]), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
