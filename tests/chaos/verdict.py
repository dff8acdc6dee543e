"""What must be true of a history when all has ended.

The claims are those of `docs/promises.md`, checked from outside: an accepted message that nobody was told of
was delivered, so it must be in the log.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from typing import Any

from tests.chaos.history import History, Sent, Telling, number_of
from trio_kprod import ProducerStatistics, Undelivered
from trio_kprod.testing import Record


class Verdict:
    """All that must be true at the end."""

    def __init__(
        self,
        history: History,
        statistics: ProducerStatistics,
        settings: dict[str, Any],
        logs: dict[str, list[list[Record]]],
    ) -> None:
        self.history = history
        self.now = statistics
        self.settings = settings
        self.logs = logs  # by topic; those of deleted topics first
        self.fates = {sent.number: sent for sent in history.sent}
        self.tellers: dict[int, list[Telling]] = defaultdict(list)
        self.verdicts: dict[int, Undelivered] = dict(history.omitted)
        for telling in history.tellings:
            for number, one in telling.told.items():
                self.tellers[number].append(telling)
                self._check(
                    self.verdicts.setdefault(number, one) == one, f"{number} was told in two different ways"
                )
        self.places: dict[int, Counter[tuple[str, int]]] = defaultdict(Counter)
        for topic, copies in logs.items():
            for index, log in enumerate(copies):
                for record in log:
                    self.places[number_of(record.value)][topic, index] += 1

    @property
    def idempotent(self) -> bool:
        return bool(self.settings["acks"] == "all")

    def check(self) -> None:
        """Raises AssertionError with all that is wrong."""
        for check in (self._outcomes, self._one_teller, self._flushes, self._log, self._places, self._order):
            check()
        self._receipts()
        assert not self.history.problems, "\n".join(dict.fromkeys(self.history.problems))

    def _check(self, condition: bool, problem: str) -> None:
        self.history.check(condition, problem)

    def _delivered(self, sent: Sent) -> bool:
        """Whether nobody was told that it failed; for the unsure also: the log shows that it was accepted."""
        if sent.number in self.verdicts:
            return False
        return sent.fate == "accepted" or (sent.fate == "unsure" and bool(self.places[sent.number]))

    def _outcomes(self) -> None:
        """Each accepted message has one outcome, and no other message has any."""
        now, fates = self.now, Counter(sent.fate for sent in self.history.sent)
        sure, unsure = fates["accepted"], fates["unsure"]
        self._check(sure <= now.accepted <= sure + unsure, f"{fates}, but {now}")
        self._check(now.accepted == now.delivered + now.undelivered, f"unsettled: {now}")
        self._check(now.undelivered == len(self.verdicts), f"{len(self.verdicts)} were told, but {now}")
        self._check(self.history.acknowledged in (now.delivered, -1), "hooks missed deliveries")
        if self.idempotent:
            delivered = sum(map(self._delivered, self.history.sent))
            self._check(now.delivered == delivered, f"{delivered} were delivered, but {now}")
        for number in self.verdicts:
            self._check(self.fates[number].fate != "refused", f"{number} was refused, and then told")

    def _one_teller(self) -> None:
        """Flushes that wait at the same time all tell; otherwise it is told once."""
        callback = "on_undelivered" in self.settings
        for number, tellers in self.tellers.items():
            alone = len(tellers) == 1 or all(
                one.who == other.who == "flush" and one.overlaps(other)
                for one in tellers
                for other in tellers
            )
            self._check(alone, f"{number} was told by {tellers}")
            self._check(number not in self.history.omitted, f"{number} was told and omitted")
            for_the_end = not callback or number in self.history.raised
            self._check(tellers[0].who != "the end" or for_the_end, f"{number} was left for the end")

    def _flushes(self) -> None:
        """Of what was accepted before it, a flush that ended tells all that failed, but what was told."""
        for flush in self.history.tellings:
            if flush.who != "flush":
                continue
            for number, tellers in self.tellers.items():
                if self.fates[number].accepted_before < flush.began and number not in flush.told:
                    for teller in tellers:
                        self._check(self._excused(flush, teller), f"{flush} missed {number}, of {teller}")

    def _excused(self, flush: Telling, teller: Telling) -> bool:
        if teller.who in ("send_and_wait", "receipt") or teller.ended < flush.began:
            return True
        if teller.who == "look":
            return teller.ended < flush.ended
        if teller.who == "flush":
            return teller.began < flush.began  # it ended just then, and its task did not know yet
        if teller.who == "on_undelivered":
            return teller.ended < flush.ended and self._kept_are_many
        return False

    @property
    def _kept_are_many(self) -> bool:
        """Perhaps there was no room to keep one until a flush would end."""
        size = sum(one.message.size for one in self.verdicts.values())
        count = self.settings["max_queue_size"] + self.settings["max_buffer_size"]
        return bool(len(self.verdicts) > count or size > self.settings["max_buffer_bytes"])

    def _log(self) -> None:
        """Delivered: in a log, once. Not written, or refused: in none. Perhaps written: once at most."""
        for sent in self.history.sent:
            copies = self.places[sent.number]
            verdict = self.verdicts.get(sent.number)
            if sent.fate == "refused" or (verdict is not None and not verdict.maybe_written):
                self._check(not copies, f"{sent.number} is in a log, but {sent.fate}, {verdict}")
            if self.settings["acks"] != 1:  # with 0, what was written is not sent again
                self._check(max(copies.values(), default=0) <= 1, f"{sent.number} is in the log twice")
            if self.settings["acks"] != 0 and sent.fate == "accepted" and verdict is None:
                self._check(bool(copies), f"{sent.number} is in no log, and nobody was told")

    def _places(self) -> None:
        """What `send_and_wait` returned is where it is."""
        found = {
            (record.topic, record.partition, record.offset, number_of(record.value))
            for logs in self.logs.values()
            for log in logs
            for record in log
        }
        for sent in self.history.sent:
            at = sent.metadata
            if at is not None and at.offset >= 0:
                self._check(
                    (at.topic, at.partition, at.offset, sent.number) in found, f"{sent.number} is not at {at}"
                )

    def _receipts(self) -> None:
        """A receipt that is asked late says what others were told."""
        for sent in self.history.sent:
            if sent.failure is not None:
                told = self.verdicts.get(sent.number)
                self._check(
                    told == sent.failure, f"{sent.number}: its receipt says {sent.failure}, not {told}"
                )
            if sent.metadata is not None:
                self._check(sent.number not in self.verdicts, f"{sent.number} is delivered, and was told")

    def _order(self) -> None:
        """The delivered messages of one partition and kind stand in the order of their calls.

        That is more than the order in which they were accepted: whoever waits for room is served in turn.
        """
        if self.settings["acks"] == 0:
            return
        for logs in self.logs.values():
            for log in logs:
                for kind, line in self._lines(log).items():
                    calls = [sent.called for sent in line.values()]
                    self._check(calls == sorted(calls), f"wrong order in the log of {kind}: {[*line]}")

    def _lines(self, log: Sequence[Record]) -> dict[tuple[object, ...], dict[int, Sent]]:
        lines: dict[tuple[object, ...], dict[int, Sent]] = defaultdict(dict)
        for record in log:
            sent = self.fates[number_of(record.value)]
            if self._delivered(sent):
                asked = sent.options.get("partition")
                kind = "explicit" if asked is not None else record.key
                lines[record.topic, record.partition, kind].setdefault(sent.number, sent)
        return lines


def readable(logs: dict[str, list[list[Record]]]) -> Iterator[str]:
    """What stands in the logs, one line a partition."""
    for topic, copies in logs.items():
        for index, log in enumerate(copies):
            lines: dict[int, list[int]] = defaultdict(list)
            for record in log:
                lines[record.partition].append(number_of(record.value))
            for partition, numbers in lines.items():
                yield f"log of {topic}-{partition}, life {index + 1}: {numbers}"
