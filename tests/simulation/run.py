"""One client and one simulated cluster, one seed choosing all that happens, and a check of the history."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from math import inf
from random import Random
from unittest.mock import patch

from tests.simulation.cluster import Cluster, Piece, Sealed
from trio_kprod._core import _partition
from trio_kprod._core._answers import Answer
from trio_kprod._core._batch import Batch, Request
from trio_kprod._core._core import ProduceCore
from trio_kprod._core._outbox import Action, AskMetadata, AskProducerId, Connect, Send
from trio_kprod._core._reports import Settled
from trio_kprod._core._shared import Rules
from trio_kprod._errors import ConnectionLost, DeliveryAborted, Refused
from trio_kprod._messages import Message

_MESSAGE_SIZE = 100
_TOPICS = ("a", "b")


class Broken(AssertionError):
    """A promise was broken."""


def _seal(
    entries: Sequence[Message], *, producer_id: int, epoch: int, sequence: int, **_: object
) -> tuple[Sealed, int]:
    size = sum(entry.size for entry in entries)
    values = tuple(entry.value or b"" for entry in entries)
    return Sealed(producer_id, epoch, sequence, values, size), size


@contextmanager
def fast_sealing() -> Iterator[None]:
    """Batches as plain values instead of bytes: a hundred times as fast."""
    with patch.object(_partition, "encode", _seal):
        yield


@dataclass
class Wire:
    """A connection: requests that are not written yet, are under way, are answered."""

    unwritten: deque[tuple[Request, list[Piece]]] = field(default_factory=deque)
    sent: deque[tuple[Request, list[Piece]]] = field(default_factory=deque)
    answers: deque[tuple[Request, dict[tuple[str, int], Answer]]] = field(default_factory=deque)

    def requests(self) -> list[Request]:
        return [item[0] for item in (*self.answers, *self.sent, *self.unwritten)]


class Simulation:
    """What happens in one run."""

    def __init__(self, seed: int) -> None:
        self.random = random = Random(seed)
        self.acks = random.choices([-1, 1, 0], [10, 1, 1])[0]
        self.cluster = Cluster(random, _TOPICS)
        self.core = ProduceCore(self._rules(), Random(seed))
        self.now = 0.0
        self.wires: dict[int, Wire] = {}
        self.frozen: list[tuple[int, deque[list[Piece]]]] = []
        self.connecting: list[int] = []
        self.questions: list[tuple[str, ...]] = []
        self.id_questions = 0
        self.next_id = 100
        self.messages: list[Message] = []
        self.outcomes: dict[bytes, tuple[Settled, int]] = {}
        self.stubborn = True  # faults still happen
        self.events, self.weights = self._mix()

    def _rules(self) -> Rules:
        random = self.random
        return Rules(
            idempotent=self.acks == -1,
            batch_size=random.choice([161, 361, 1061]),
            max_request_size=random.choice([500, 10_000]),
            retry_backoff=random.choice([0.01, 0.1]),
            max_retries=random.choice([-1, -1, 2]),
            delivery_timeout=random.choice([inf, inf, 0.5, 2.0]),
            topic_timeout=60.0,
        )

    def run(self, steps: int = 150) -> None:
        for _ in range(steps):
            self._one_event()
            self._step()
        self._calm()
        if self.random.random() < 0.1:
            self.core.stop([], DeliveryAborted("stopped"), self.now)
        self._step()
        for _ in range(3000):
            if len(self.outcomes) == len(self.messages):
                break
            self._quiet_event()
            self._step()
        else:
            raise Broken(f"{len(self.messages) - len(self.outcomes)} messages are never settled")
        while self.frozen:
            self._thaw()
        for partition in self.cluster.partitions():
            partition.commit()

    def _step(self) -> None:
        self.core.advance(self.now)
        for action in self.core.actions(self.now):
            self._do(action)

    def _do(self, action: Action) -> None:
        if isinstance(action, Settled):
            self._settled(action)
        elif isinstance(action, Send):
            self._send(action.request)
        elif isinstance(action, Connect):
            self.connecting.append(action.node)
        elif isinstance(action, AskMetadata):
            self.questions.append(action.topics)
        elif isinstance(action, AskProducerId):
            self.id_questions += 1

    def _settled(self, settled: Settled) -> None:
        for index, entry in enumerate(settled.entries):
            assert entry.value is not None
            if entry.value in self.outcomes:
                raise Broken(f"{entry.value!r} is told twice")
            self.outcomes[entry.value] = settled, index

    def _send(self, request: Request) -> None:
        wire = self.wires.get(request.node)
        if wire is None:
            self.core.lost(request.node, [request], ConnectionLost("ended"), self.now)
            return
        indices = [(batch.partition.topic.name, batch.partition.index) for batch in request.batches]
        if len(set(indices)) < len(indices):
            raise Broken("a partition stands twice in a request")
        wire.unwritten.append((request, [_piece(batch) for batch in request.batches]))

    # ---- what can happen ---------------------------------------------------------------------------------

    def _mix(self) -> tuple[list[Callable[[], None]], list[float]]:
        """What happens, and how often: a mix of its own for each run, as rare bugs hide in extremes."""
        usual: dict[Callable[[], None], int] = {
            self._submit: 12,
            self._process: 25,
            self._answer: 18,
            self._connection: 6,
            self._metadata: 5,
            self._producer_id: 4,
            self._wait: 5,
            self._kill: 3,
            self._thaw: 2,
            self._elect: 3,
            self._enlighten: 2,
            self._change_rules: 4,
            self._recreate: 1,
        }
        return list(usual), [weight * self.random.choice([0.2, 1, 1, 4]) for weight in usual.values()]

    def _one_event(self) -> None:
        self.random.choices(self.events, self.weights)[0]()

    def _quiet_event(self) -> None:
        """Only what goes well, all of it: nothing may be left waiting for anything else."""
        for _ in range(3):
            self._process()
            self._answer()
        self._connection()
        self._metadata()
        self._producer_id()
        self._wait()

    def _calm(self) -> None:
        self.stubborn = False
        self.cluster.calm()

    def _submit(self) -> None:
        entries = [self._message() for _ in range(self.random.choice([1, 2, 5, 20]))]
        self.messages += entries
        self.core.submit(entries, self.now)

    def _message(self) -> Message:
        random = self.random
        number = len(self.messages) + random.getrandbits(32)
        value = b"%d" % number
        if random.random() < 0.05:
            self.cluster.bad.add(value)
        key = random.choice([None, b"k", b"l", b"m"])
        partition = 0 if random.random() < 0.2 else None
        topic = random.choice(_TOPICS)
        return Message(topic, value, key, (), partition, 0, _MESSAGE_SIZE, self.now)

    def _write(self, node: int, wire: Wire) -> None:
        while wire.unwritten and (not self.stubborn or self.random.random() < 0.9):
            request, pieces = wire.unwritten.popleft()
            request.handed = True
            if self.acks == 0:
                self.cluster.produce(node, pieces)
                self.core.sent(request, self.now)
            else:
                wire.sent.append((request, pieces))

    def _process(self) -> None:
        for node, wire in self._some_wires():
            self._write(node, wire)
            if wire.sent:
                request, pieces = wire.sent.popleft()
                wire.answers.append((request, self.cluster.produce(node, pieces)))

    def _answer(self) -> None:
        for _, wire in self._some_wires():
            if wire.answers:
                request, answers = wire.answers.popleft()
                if self.stubborn and self.random.random() < 0.01:
                    answers.popitem()
                self.core.answered(request, answers, self.now)

    def _some_wires(self) -> list[tuple[int, Wire]]:
        wires = list(self.wires.items())
        if not self.stubborn:
            return wires
        return self.random.sample(wires, min(1, len(wires)))

    def _connection(self) -> None:
        for node in self.connecting[:]:
            self.connecting.remove(node)
            if node in self.cluster.down:
                self.core.unreachable(node, self.now)
            else:
                self.wires[node] = Wire()
                self.core.connected(node, self.now)

    def _metadata(self) -> None:
        if not self.questions:
            return
        names = self.questions.pop(0)
        if self.stubborn and self.random.random() < 0.2:
            self.core.metadata_failed(names, self.now)
        else:
            old = self.stubborn and self.random.random() < 0.3
            self.core.metadata(self.cluster.metadata(names, old=old), names, self.now)

    def _producer_id(self) -> None:
        if not self.id_questions:
            return
        self.id_questions -= 1
        chance = self.random.random() if self.stubborn else 1.0
        if chance < 0.3:
            refused = Refused(31, "CLUSTER_AUTHORIZATION_FAILED") if chance < 0.02 else None
            self.core.producer_id_failed(refused, self.now)
        else:
            self.next_id += 1
            self.core.producer_id(self.next_id, self.now)

    def _wait(self) -> None:
        if self.random.random() < 0.5 and self.core.deadline < inf:
            self.now = max(self.now, min(self.core.deadline, self.now + 1.0))
        else:
            self.now += self.random.choice([0.001, 0.02, 0.3])

    def _kill(self) -> None:
        """A connection ends. What was under way is lost from some request on, or arrives later."""
        for node, wire in self._some_wires():
            del self.wires[node]
            arrived = [pieces for _, pieces in wire.sent]
            arrived = arrived[: self.random.randint(0, len(arrived))]
            if arrived:
                self.frozen.append((node, deque(arrived)))
            self.core.lost(node, wire.requests(), ConnectionLost("killed"), self.now)

    def _thaw(self) -> None:
        """A broker processes what it had received on a connection that has ended."""
        if self.frozen:
            item = self.random.choice(self.frozen)
            node, requests = item
            self.cluster.produce(node, requests.popleft())
            if not requests:
                self.frozen.remove(item)

    def _elect(self) -> None:
        partition = self.random.choice(self.cluster.partitions())
        others = [node for node in self.cluster.nodes if node != partition.leader]
        partition.elect(self.random.choice(others), unaware=self.random.random() < 0.5)
        self.cluster.changed()

    def _enlighten(self) -> None:
        """Deposed leaders hear of it."""
        self.random.choice(self.cluster.partitions()).deposed.clear()

    def _change_rules(self) -> None:
        random, cluster = self.random, self.cluster
        what = random.randrange(6)
        if what == 0:
            cluster.trouble = random.choice([0.0, 0.1, 0.5])
        elif what == 1:
            cluster.size_limit = random.choice([100, 250, 600, 10_000])
        elif what == 2:
            cluster.validating = not cluster.validating
        elif what == 3:
            cluster.denied = {random.choice(_TOPICS)} if random.random() < 0.3 else set()
        elif what == 4:
            partition = random.choice(cluster.partitions())
            partition.few_replicas = not partition.few_replicas
        else:
            cluster.down = {random.choice(cluster.nodes)} if random.random() < 0.3 else set()

    def _recreate(self) -> None:
        if self.random.random() < 0.3:
            self.cluster.create(self.random.choice(_TOPICS))


def _piece(batch: Batch) -> Piece:
    topic, sealed = batch.partition.topic, batch.data
    assert isinstance(sealed, Sealed)
    return Piece(topic.name, topic.id, batch.partition.index, sealed)


# ---- the history -----------------------------------------------------------------------------------------


def check(simulation: Simulation) -> None:
    """Raise `Broken` if any promise was."""
    for _, topic in simulation.cluster.logs:
        for partition in topic.partitions:
            values = partition.values()
            if simulation.acks == -1:
                _check_once(values)
            _check_absent(simulation, values)
            if simulation.acks == -1:
                _check_order(simulation, values)
    if simulation.acks == -1:
        for value, (settled, index) in simulation.outcomes.items():
            if settled.error is None:
                _check_delivered(simulation, value, settled, index)


def _check_once(values: Iterable[bytes]) -> None:
    for value, count in Counter(values).items():
        if count > 1:
            raise Broken(f"{value!r} is {count} times in the log")


def _check_absent(simulation: Simulation, values: Iterable[bytes]) -> None:
    for value in values:
        settled, _ = simulation.outcomes[value]
        if settled.error is not None and not settled.maybe_written:
            raise Broken(f"{value!r} is in the log, but was told not to be: {settled.error!r}")


def _check_order(simulation: Simulation, values: Iterable[bytes]) -> None:
    """Delivered messages of a partition stand as accepted; those without a partition among themselves."""
    places = {message.value: place for place, message in enumerate(simulation.messages)}
    last = {True: -1, False: -1}
    for value in values:
        if simulation.outcomes[value][0].error is not None:
            continue
        message = simulation.messages[places[value]]
        keyless = message.key is None and message.partition is None
        if places[value] < last[keyless]:
            raise Broken(f"{value!r} is out of order")
        last[keyless] = places[value]


def _check_delivered(simulation: Simulation, value: bytes, settled: Settled, index: int) -> None:
    logs = [
        topic.partitions[settled.partition].values()
        for name, topic in simulation.cluster.logs
        if name == settled.topic and settled.partition < len(topic.partitions)
    ]
    if settled.base_offset < 0:
        found = any(value in log for log in logs)
    else:
        place = settled.base_offset + index
        found = any(log[place : place + 1] == [value] for log in logs)
    if not found:
        raise Broken(f"{value!r} was told to be delivered, but is not there: {settled}")


def run(seed: int) -> None:
    """One run, and its history checked. Within `fast_sealing`."""
    simulation = Simulation(seed)
    simulation.run()
    check(simulation)
