"""One producer and one cluster: does what the core wants done, and tells it what came of it.

Whatever can happen is a method here; *when* it happens is decided elsewhere (`faults`, `run`).
"""

from __future__ import annotations

from collections.abc import Collection
from random import Random

from tests.simulation.bounds import Bounds
from tests.simulation.cluster import Cluster, Piece, Place
from tests.simulation.dice import Dice
from tests.simulation.history import Broken, History
from tests.simulation.log import Sealed
from tests.simulation.network import Connection, Frame, Work
from tests.simulation.setting import TOPICS, Setting
from tests.simulation.stalls import Stalls
from trio_kprod._core._actions import Action, Connect, RequestMetadata, RequestProducerId, Send
from trio_kprod._core._batch import Batch, Request
from trio_kprod._core._core import ProduceCore
from trio_kprod._core._error_codes import PartitionResponse, refusal
from trio_kprod._core._reports import Settled
from trio_kprod._errors import ConnectionLost, DeliveryAborted
from trio_kprod._messages import Entry

#: The broker answers "timed out" before the client loses patience.
_BROKER_SHARE = 0.8


def _silent(text: str, *args: object) -> None:
    """Nobody wants to read along."""


class World:
    """The state of one run."""

    def __init__(self, setting: Setting) -> None:
        self.setting = setting
        self.dice = Dice(setting.seed)
        self.say = _silent
        self.cluster = Cluster(setting, self.dice)
        self.history = History(setting, self.cluster)
        self.bounds = Bounds(setting.rules, self.history.outcomes)
        self._core = ProduceCore(setting.rules, Random(setting.seed))
        self._stirred = True
        self._stalls = Stalls()
        self.connections: dict[int, Connection] = {}
        self.orphans: list[Connection] = []  # the client is gone, and the broker does not know
        self.connecting: list[int] = []
        self.questions: list[tuple[str, ...]] = []
        self.id_questions = 0
        self.next_id = 100
        for name in TOPICS[: setting.topics]:
            self.cluster.create(name)

    # ---- the client ----------------------------------------------------------------------------------------

    @property
    def now(self) -> float:
        return self._core.now

    @now.setter
    def now(self, now: float) -> None:
        self._core.now = now

    @property
    def core(self) -> ProduceCore:
        """Who speaks to it stirs it."""
        self._stirred = True
        return self._core

    def step(self) -> None:
        """Let the core react to what happened, if it was told of anything."""
        if not self._stirred:
            return
        self._stirred = False
        self._core.advance()
        for action in self._core.actions():
            self._do(action)
        for connection in self.connections.values():
            connection.drop_withdrawn()
            self._check_unwritten(connection)
        counts = {name: len(topic.partitions) for name, topic in self._core._topics.items()}
        self._stalls.check(counts, self.now)
        self.history.before = self.now

    def _check_unwritten(self, connection: Connection) -> None:
        """What waits to be written is unsettled: it is accounted for, and no memory beside that."""
        for frame in connection.under_way:
            if not frame.request.write_started:
                for piece in frame.pieces:
                    if any(value in self.history.outcomes for value in piece.sealed.values):
                        raise Broken(f"{piece.sealed} waits to be written and has its outcome")

    def _do(self, action: Action) -> None:
        self._stalls.reported(action, self.now)
        if isinstance(action, Settled):
            self.say("settled %s", action)
            self.history.tell(action, self.now)
        elif isinstance(action, Send):
            self._send(action.request)
        elif isinstance(action, Connect):
            self.connecting.append(action.node)
        elif isinstance(action, RequestMetadata):
            self.say("asks for metadata of %s", action.topics)
            self.questions.append(action.topics)
        elif isinstance(action, RequestProducerId):
            self.say("asks for a producer id")
            self.id_questions += 1

    def _send(self, request: Request) -> None:
        connection = self.connections.get(request.node)
        if connection is None:
            self.core.lost(request.node, [request], ConnectionLost("ended"))
            return
        pieces = [self._piece(batch, request) for batch in request.batches]
        self.bounds.sent(request.node, pieces, self.now)
        connection.send(request, pieces, self.now)
        self.say("sends to node %d: %s", request.node, connection.under_way[-1])

    def _piece(self, batch: Batch, request: Request) -> Piece:
        topic, sealed = batch.partition.topic, batch.data
        assert isinstance(sealed, Sealed)
        # One topic without id, and the whole request goes by name.
        by_name = self.setting.by_name or any(not one.partition.topic.id.int for one in request.batches)
        return Piece(Place(topic.name, batch.partition.index), topic.id, by_name, sealed)

    def submit(self, messages: list[Entry]) -> None:
        self.say("submits %s", messages)
        self.history.accept(messages, self.now)
        self._stalls.submitted(messages, self.now)
        self.core.submit(messages)

    def stop(self, late: list[Entry]) -> None:
        """The scope ends. Not another byte is written."""
        self.say("stops")
        self.history.accept(late, self.now)
        self._stalls.submitted(late, self.now)
        self.history.stopped = True
        for connection in self.connections.values():
            self._orphan(connection)
        self.connections.clear()
        self.core.stop(late, DeliveryAborted("stopped"))

    # ---- connections ---------------------------------------------------------------------------------------

    def connect(self, node: int) -> None:
        if node in self.cluster.down:
            self.say("node %d is unreachable", node)
            self.core.unreachable(node)
        else:
            self.say("node %d is connected", node)
            self.connections[node] = Connection(node)
            self.core.connected(node)

    def transfer(self, connection: Connection, written: int, arrived: int) -> None:
        connection.transfer(written, arrived)
        if self.setting.acks == 0:
            for frame in connection.written_frames():
                frame.client_waits = False
                self.history.written(frame.pieces, connection)
                self.bounds.ended(frame.pieces, {})
                self.core.sent(frame.request)

    def transfer_all(self, connection: Connection) -> None:
        self.transfer(connection, connection.length, connection.length)

    def disconnect(self, connection: Connection, *, broker_dies: bool = False) -> None:
        """The client finds it ended. What has arrived will be processed, unless the broker died."""
        frames = connection.unanswered()
        self.bounds.disconnected(connection.node)
        self.say("loses node %d, waiting for: %s", connection.node, "; ".join(map(str, frames)) or "nothing")
        del self.connections[connection.node]
        if not broker_dies:
            self._orphan(connection)
        for frame in frames:
            frame.client_waits = False
            if frame.request.write_started:
                for piece in frame.pieces:
                    self.history.lost(piece.sealed)
            self.bounds.ended(frame.pieces, {}, write_started=frame.request.write_started)
        requests = [frame.request for frame in frames]
        self.core.lost(connection.node, requests, ConnectionLost("lost"))

    def _orphan(self, connection: Connection) -> None:
        if connection.busy:
            self.orphans.append(connection)

    def lose_patience(self) -> None:
        """The client ends connections on which an answer is overdue."""
        for connection in list(self.connections.values()):
            if connection.oldest + self.setting.request_timeout <= self.now:
                self.disconnect(connection)

    # ---- brokers -------------------------------------------------------------------------------------------

    def work(self, connection: Connection) -> bool:
        """The broker goes on with a connection's requests; tell whether anything came of it."""
        if connection.muted_until > self.now:
            return False
        if connection.work is None:
            if not connection.inbox:
                return False
            self._begin(connection)
        return connection.work is not None and self._finish(connection, connection.work)

    def _begin(self, connection: Connection) -> None:
        frame = connection.inbox.popleft()
        if frame.size > self.cluster.frame_limits[connection.node]:
            self.say("node %d refuses to read %d bytes", connection.node, frame.size)
            self._hang_up(connection, frame)
            return
        parts = self.cluster.produce(connection.node, frame.pieces)
        refused = [part for part in parts.values() if isinstance(part, PartitionResponse) and part.code]
        if self.setting.acks == 0 and refused:
            self.say("node %d cannot answer %s: %s", connection.node, frame, refused)
            self._hang_up(connection, frame)
            return
        connection.work = Work(frame, parts, self.now)

    def _hang_up(self, connection: Connection, frame: Frame) -> None:
        """The broker closes the connection without an answer, and reads nothing that is behind."""
        connection.inbox.appendleft(frame)
        if self.connections.get(connection.node) is connection:
            self.disconnect(connection, broker_dies=True)
        connection.inbox.clear()

    def _finish(self, connection: Connection, work: Work) -> bool:
        timed_out = self.now >= self.patience_ends(connection)
        answers: dict[Place, PartitionResponse] = {}
        for place, part in work.parts.items():
            if isinstance(part, PartitionResponse):
                answers[place] = part
            else:
                answer = self.cluster.outcome(connection.node, part, timed_out=timed_out)
                if answer is None:
                    return False  # and so does everything behind it
                answers[place] = answer
        connection.work = None
        connection.outbox.append((work.frame, answers))
        self.say("node %d has processed %s: %s", connection.node, work.frame, answers)
        return True

    def patience_ends(self, connection: Connection) -> float:
        """When the broker answers what it works at without the replicas."""
        if connection.work is None:
            return self.now
        return connection.work.begun_at + self.setting.request_timeout * _BROKER_SHARE

    def answer(self, connection: Connection, *, forget: Place | None = None) -> bool:
        """An answer arrives; tell whether there was one. (It may `forget` to mention a partition.)"""
        if not connection.outbox:
            return False
        frame, answers = connection.outbox.popleft()
        if not frame.client_waits:
            return True
        frame.client_waits = False
        told = {**answers}
        if forget is not None:
            del told[forget]
        self.say("hears from node %d: %s", connection.node, told)
        for piece in frame.pieces:
            answer = told.get(piece.place)
            if answer is None:
                self.history.unanswered(piece.sealed)
            elif answer.code:
                self.history.refused(piece.sealed, answer)
        self.bounds.ended(frame.pieces, told)
        self.core.responded(frame.request, dict[tuple[str, int], PartitionResponse](told.items()))
        return True

    # ---- questions -----------------------------------------------------------------------------------------

    def answer_metadata(self, *, old: bool = False, failed: bool = False) -> bool:
        if not self.questions:
            return False
        names = self.questions.pop(0)
        if failed:
            self.say("gets no metadata of %s", names)
            self.core.metadata_failed(names)
            return True
        topics = self.cluster.metadata(names, old=old)
        self.say("gets %smetadata: %s", "old " if old else "", topics)
        told = {topic.name: topic for topic in topics}
        for name in names:
            self.history.described(name, told.get(name), self.now)
        self.core.metadata(topics, names)
        return True

    def answer_producer_id(self, code: int = 0) -> bool:
        """Give a producer id, or (`code`) refuse one: for now, or for good with 31."""
        if not self.id_questions:
            return False
        self.id_questions -= 1
        if code:
            self.say("gets no producer id: %d", code)
            self.history.ids_refused |= code == 31
            self.core.producer_id_failed(refusal(code), final=code == 31)
        else:
            self.next_id += 1
            self.say("gets producer id %d", self.next_id)
            self.core.producer_id(self.next_id)
        return True

    # ---- if all goes well ---------------------------------------------------------------------------------

    def progress(self) -> bool:
        """Let everything that is under way arrive; tell whether anything was."""
        nodes, self.connecting = self.connecting, []
        for node in nodes:
            self.connect(node)
        moved = bool(nodes)
        moved |= self.answer_metadata()
        moved |= self.answer_producer_id()
        for connection in list(self.connections.values()):
            if connection.under_way:
                moved = True
                self.transfer_all(connection)
            while connection.busy and self.work(connection):
                moved = True
            while connection.outbox and self.answer(connection):
                moved = True
        return moved

    # ---- the end -------------------------------------------------------------------------------------------

    def calm(self) -> None:
        self.say("all faults end")
        self.cluster.calm()

    def thaw_all(self) -> None:
        """Whatever any broker still holds is processed, in some order, and everything is replicated."""
        for connection in self.connections.values():
            self.transfer_all(connection)
            self._orphan(connection)
        while self.orphans:
            self.thaw(self.dice.choice(self.orphans))
        for partition in self.cluster.partitions():
            partition.enlighten()
            partition.replicate()

    def thaw(self, orphan: Connection) -> None:
        """A broker goes on with what it had received on a connection that has ended."""
        if orphan.work is None and orphan.inbox:
            self.say("node %d comes to process %s", orphan.node, orphan.inbox[0])
            self._begin(orphan)
        orphan.work = None  # nobody waits for the answer
        if not orphan.inbox:
            self.orphans.remove(orphan)

    def check_memory(self) -> None:
        """With everything settled, the core holds on to nothing."""
        for name, topic in self.core._topics.items():
            rooms: list[Collection[object]] = [topic.arrivals, topic.keyless.messages, topic.strays]
            numbers = [topic.unsettled, topic.keyless.size]
            for partition in topic.partitions:
                rooms += partition.queue, partition.batches
                numbers.append(partition.queue_bytes)
            if any(map(len, rooms)) or any(numbers):
                raise Broken(f"something is left of topic {name}")
        self.now += 1e9
        self.core.advance()
        if len(self.core._outbox._timers) > 1:  # that of the age of metadata
            raise Broken("timers are left")
