"""What can go wrong on purpose: a fault says with which requests, how often, and what happens.

Four faults, one vocabulary: `Answer` an error, `Delay`, `Silence`, `Drop` the connection. Each
matches requests by api, topic and partition, lets the first `skip` of them pass and is spent after `times`
(None: never). The broker looks faults up in the order in which they were added. To one request the first
match of each kind applies: two answers added one after the other are given one after the other, while a
delay and an answer go together.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal

from ._checks import check_api, check_integer, check_seconds, check_text
from ._codes import error_code

Target = tuple["str | None", "int | None"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Limited:
    """Which requests, and how often: what the broker's faults and the proxy's have in common."""

    api: str | None = field(default=None, kw_only=False)
    times: int | None = 1
    skip: int = 0

    def __post_init__(self) -> None:
        if self.api is not None:
            check_api(self.api)
        if self.times is not None:
            check_integer("times", self.times, 1, ", or None for always")
        check_integer("skip", self.skip, 0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault(Limited):
    """Which requests, and how often.

    Attributes:
        api (str | None): the request's name in Kafka's protocol guide, such as ``"Produce"``; None is any.
        topic (str | None): only requests that name this topic; None is any, and requests without topics.
        partition (int | None): only requests that name this partition.
        times (int | None): how many matching requests it is for; None for all of them.
        skip (int): how many matching requests pass before the first.
    """

    topic: str | None = None
    partition: int | None = None

    def __post_init__(self) -> None:
        Limited.__post_init__(self)  # by name: a slotted dataclass is another class, super() would miss it
        if self.topic is not None:
            check_text("topic", self.topic)
        if self.partition is not None:
            check_integer("partition", self.partition, 0)

    def concerns(self, target: Target) -> bool:
        """Whether it is about this topic and partition of a request."""
        topic, partition = target
        return self.topic in (None, topic) and self.partition in (None, partition)


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer(Fault):
    """The request is answered with an error.

    Attributes:
        error (int | str): Kafka's error, by its code or its name: 29 or ``"TOPIC_AUTHORIZATION_FAILED"``. 0
            without `after_append` is a lie: the records are acknowledged but not written.
        after_append (bool): write the batches first. If the broker's own rules refuse one, it gets their
            error instead. Only Produce looks at this and at what follows.
        base_offset (int | None): the offset in the answer; None is the true one, or -1 if nothing was
            appended.
        record_errors: pairs of a record's index in its batch and a message (or None), as of KIP-467.
        message (str | None): the text that goes with the error.
        leader (tuple[int, int] | None): node id and leader epoch as a hint where to go (KIP-951).
        code (int): the error's code, however `error` was given.
    """

    error: int | str
    after_append: bool = False
    base_offset: int | None = None
    record_errors: Sequence[tuple[int, str | None]] = ()
    message: str | None = None
    leader: tuple[int, int] | None = None
    code: int = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        Fault.__post_init__(self)
        object.__setattr__(self, "code", error_code(self.error))
        if self.base_offset is not None:
            check_integer("base_offset", self.base_offset, -1)
        for index, message in self.record_errors:
            check_integer("a record's index", index, 0)
            if message is not None:
                check_text("a record's message", message)
        if self.message is not None:
            check_text("message", self.message)
        if self.leader is not None:
            node_id, epoch = self.leader
            check_integer("the leader's node id", node_id, -1)
            check_integer("the leader's epoch", epoch, -1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Delay(Fault):
    """The request is handled `seconds` later, or handled at once and answered later (`after_append`).

    Later requests on the same connection wait too: a broker serves a connection in order.
    """

    seconds: float
    after_append: bool = False

    def __post_init__(self) -> None:
        Fault.__post_init__(self)
        check_seconds(self.seconds)


@dataclass(frozen=True, slots=True, kw_only=True)
class Silence(Fault):
    """The request is read and held, and with it its connection, until it is resumed.

    Then it is handled and answered, as by a broker process that was stopped and goes on: a request may
    outlive its client. With `after_append` it is handled at once and only the answer is held.
    """

    after_append: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Drop(Fault):
    """The connection is closed: when accepted, or with a request read but not handled, or handled.

    ``after="accept"`` closes new connections before they have said anything, and matches on nothing else.
    """

    after: Literal["accept", "request", "append"] = "request"

    def __post_init__(self) -> None:
        Fault.__post_init__(self)
        if self.after not in ("accept", "request", "append"):
            raise ValueError(f"after must be 'accept', 'request' or 'append'; got {self.after!r}")


class Rule:
    """A fault at work.

    Attributes:
        fault (Fault): what was scripted. The fault of a proxy's rule is for looking at only.
        hits (int): how many requests (a proxy's: frames, or connections) it applied to so far.
        active (bool): False once it was removed (a spent one is active until then, but matches no more).
    """

    def __init__(self, fault: Limited, changed: Callable[[], None]) -> None:
        self.fault = fault
        self.hits = 0
        self.active: bool = True
        self._to_skip = fault.skip
        self._changed = changed

    def __repr__(self) -> str:
        state = "" if self.active else ", removed"
        return f"<Rule {self.fault!r}, hits={self.hits}{state}>"

    def remove(self) -> None:
        """Stop applying it, and release what a `Silence` holds. Thread-safe, and may be called again."""
        self.active = False
        self._changed()

    @property
    def spent(self) -> bool:
        """Whether it matches nothing any more."""
        return not self.active or self.hits == self.fault.times

    @property
    def begun(self) -> bool:
        """Whether it applies to the next matching request."""
        return not self.spent and not self._to_skip

    def due(self) -> bool:
        """Count a matching request. Returns whether the fault applies to it."""
        if self._to_skip:
            self._to_skip -= 1
            return False
        return True


@dataclass(slots=True)
class Plan:
    """What is to go wrong with one request."""

    answers: dict[Target, Answer] = field(default_factory=dict[Target, Answer])
    delay: Delay | None = None
    silence: Rule | None = None
    drop: Drop | None = None

    def answer_for(self, topic: str | None = None, partition: int | None = None) -> Answer | None:
        """The scripted answer for one target of the request."""
        return self.answers.get((topic, partition))

    def held_by(self, *, after_append: bool) -> Rule | None:
        """The rule that keeps silent at this point of the request's life."""
        fault = self.silence.fault if self.silence else None
        return self.silence if isinstance(fault, Silence) and fault.after_append == after_append else None

    def lacks(self, fault: Limited, targets: Iterable[Target]) -> bool:
        """Whether the plan can still take a fault of this kind, for one of these targets."""
        if isinstance(fault, Answer):
            return any(target not in self.answers for target in targets)
        if isinstance(fault, Delay):
            return self.delay is None
        return (self.silence is None) if isinstance(fault, Silence) else (self.drop is None)

    def add(self, rule: Rule, targets: Iterable[Target]) -> None:
        """Take a rule up into the plan."""
        rule.hits += 1
        fault = rule.fault
        if isinstance(fault, Answer):
            self.answers = dict.fromkeys(targets, fault) | self.answers
        elif isinstance(fault, Delay):
            self.delay = fault
        elif isinstance(fault, Silence):
            self.silence = rule
        elif isinstance(fault, Drop):
            self.drop = fault


class Rules:
    """The faults that were scripted, in order. Not thread-safe: the cluster's lock guards it."""

    def __init__(self) -> None:
        self._rules: list[Rule] = []

    def add(self, rule: Rule) -> None:
        """Append a rule."""
        self._rules.append(rule)

    def silences(self) -> list[Rule]:
        """The rules that hold connections, spent or not."""
        return [rule for rule in self._rules if isinstance(rule.fault, Silence)]

    def clear(self) -> list[Rule]:
        """Forget all; returns what there was."""
        rules, self._rules = self._rules, []
        return rules

    def accept(self) -> bool:
        """Whether a new connection may stay."""
        for rule in self._rules:
            fault = rule.fault
            if isinstance(fault, Drop) and fault.after == "accept" and not rule.spent and rule.due():
                rule.hits += 1
                return False
        return True

    def plan(self, api: str, targets: Sequence[Target]) -> Plan:
        """What is to go wrong with a request about these topics and partitions."""
        plan = Plan()
        for rule in self._rules:
            matched = [] if rule.spent else _matching(rule.fault, api, targets)
            if matched and plan.lacks(rule.fault, matched) and rule.due():
                plan.add(rule, matched)
        # A silence is kept until it is resumed, as connections still hang on it.
        self._rules = [rule for rule in self._rules if not rule.spent or _holds(rule)]
        return plan


def _matching(fault: Limited, api: str, targets: Sequence[Target]) -> list[Target]:
    if fault.api not in (None, api) or (isinstance(fault, Drop) and fault.after == "accept"):
        return []
    assert isinstance(fault, Fault), "a broker's rules have a broker's faults"
    return [target for target in targets if fault.concerns(target)]


def _holds(rule: Rule) -> bool:
    return rule.active and isinstance(rule.fault, Silence)
