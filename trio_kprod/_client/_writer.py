"""What one connection writes, and what it then waits for.

A broker answers one connection's requests in their order, so the requests in flight are a queue: the writer
appends to it, the reader takes from its front.

A request is marked as begun, under the fence's lock, before its first byte is given to the stream. When the
connection has ended, the transport below TLS knows how many bytes have left, and so whether any of this
request has. If a transport does not count, the mark stands.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from math import inf

import trio

from .._errors import ConnectionLost
from ._exchange import Exchange
from ._reasons import losing
from ._transport import Fence, FencedStream

#: A request that gets no response may take this many times as long as others to be written. A broker that
#: throttles reads nothing for a while (KIP-219), and without responses cannot say so. If we ended the
#: connection, the broker would still read the rest of it later, after newer messages on the next one.
PATIENCE_WITHOUT_RESPONSE = 4


class InFlight:
    """The requests in flight on one connection, and for how long its reader may hear nothing.

    Args:
        on_throttle: called with the seconds by which a throttle makes the present pause longer.

    Attributes:
        exchanges (deque[Exchange]): begun and without a response yet, oldest first. A request that gets no
            response leaves when it is written.
        completed (int): how many got their response, or were written if they get none.
        throttled_until (float): the broker reads nothing from us before (KIP-219).
        max_idle (float): how long a connection may be open without use.
        reading (trio.CancelScope): the reader waits in it until `patient_until`.
    """

    def __init__(self, on_throttle: Callable[[float], object] | None = None) -> None:
        self.exchanges: deque[Exchange] = deque()
        self.completed = 0
        self.throttled_until = -inf
        self.max_idle = inf
        self.reading = trio.CancelScope()
        self._on_throttle = on_throttle
        self._used_at = 0.0
        self._drained = trio.Event()

    def use(self) -> float:
        """The connection is used now."""
        self._used_at = trio.current_time()
        return self._used_at

    def begin(self, exchange: Exchange) -> None:
        """Its write starts."""
        exchange.deadline = self.use() + patience(exchange)
        self.exchanges.append(exchange)

    def watch(self, exchange: Exchange) -> None:
        """End the reader's wait no later than at the deadline of this request, which was begun."""
        if exchange.deadline < self.reading.deadline:
            self.reading.deadline = exchange.deadline

    def written(self, exchange: Exchange) -> None:
        """All of it is written."""
        exchange.unwritten = None
        if not exchange.expects_response:
            self.exchanges.pop()
            self.completed += 1

    def take_first(self) -> Exchange:
        """Its response has come."""
        exchange = self.exchanges.popleft()
        self.completed += 1
        self.use()
        if not self.exchanges:
            self._drained.set()
        return exchange

    def throttle(self, seconds: float) -> None:
        """The broker has responded, and from now on reads nothing for that time (KIP-219).

        Until then it owes no response to the requests in flight, however long that is.
        """
        now = trio.current_time()
        delay = now + seconds - max(now, self.throttled_until)
        if delay > 0:
            self.throttled_until = now + seconds
            if self._on_throttle is not None:
                self._on_throttle(delay)
            for exchange in self.exchanges:
                exchange.deadline += delay

    def patient_until(self) -> float:
        """When the connection has to end unless something happens.

        The scope `reading` may end earlier, at the old deadline of a request that was answered or got more
        time: it is not adjusted each time.
        """
        if self.exchanges:
            return min(exchange.deadline for exchange in self.exchanges)
        return max(self._used_at, self.throttled_until) + self.max_idle

    async def drained(self) -> None:
        """Wait until nothing is in flight; only while nothing is written."""
        while self.exchanges:
            self._drained = trio.Event()
            await self._drained.wait()


def patience(exchange: Exchange) -> float:
    """How long a request may take, in seconds."""
    return exchange.timeout * (1 if exchange.expects_response else PATIENCE_WITHOUT_RESPONSE)


class Writer:
    """Writes the requests of one connection, in the order in which they were sent.

    If there is nothing to wait for, `send` writes a request itself, which saves the writer's task a turn.
    That task writes everything else, with `write_next`. A request stays at the front of the queue until it is
    written as a whole.
    """

    def __init__(self, fence: Fence, client_id: str, in_flight: InFlight) -> None:
        self.queue: deque[Exchange] = deque()
        self._fence = fence
        self._client_id = client_id
        self._in_flight = in_flight
        self._stream: trio.abc.Stream
        self._transport: trio.abc.Stream
        self._failure: ConnectionLost | None = None  # of a write in `send`, for the task to raise
        self._correlation_id = 0
        # The task waits for something to write, and how it is woken.
        self._idle = False
        self._work = trio.Event()

    def attach(self, stream: trio.abc.Stream, transport: trio.abc.Stream) -> None:
        """Write to `stream` from now on; `transport` is the stream below TLS, or the same one without TLS."""
        self._stream = stream
        self._transport = transport

    @property
    def is_midway(self) -> bool:
        """Whether a request is partly written, so that its rest comes before anything else."""
        return bool(self.queue and self.queue[0].unwritten is not None)

    def send(self, exchange: Exchange) -> None:
        """Write a request behind those before it: at once, or later by the task. Never blocks."""
        self.queue.append(exchange)
        if self._idle:
            if self._may_write_now():
                self._write_now(exchange)
            if self.queue or self._failure is not None:
                self._idle = False
                self._work.set()

    def withdraw(self, exchange: Exchange) -> None:
        """Take a request out of the queue, unless its write has started."""
        if not exchange.write_started and exchange in self.queue:
            self.queue.remove(exchange)

    def _may_write_now(self) -> bool:
        """Whether the one request in the queue can be written without waiting for anything.

        Over TLS a write may have to wait. And the reader goes first: if the end of the stream has come,
        nothing more may be written, so that the request counts as not written.
        """
        return (
            len(self.queue) == 1
            and isinstance(self._stream, FencedStream)
            and trio.current_time() >= self._in_flight.throttled_until
            and self._stream.is_quiet()
        )

    def _write_now(self, exchange: Exchange) -> None:
        assert isinstance(self._stream, FencedStream)
        if exchange.is_empty:
            self.queue.popleft()
            return
        try:
            with losing():
                rest = self._begin(exchange)
                sent = self._stream.send_nowait(rest)
        except ConnectionLost as error:  # the task raises it: the caller of `send` does not care
            self._failure = error
            return
        if sent < len(rest):
            exchange.unwritten = rest[sent:]
        else:
            self.queue.popleft()
            self._end(exchange)

    async def wait_for_work(self) -> None:
        """Wait until there is something to write; raises `ConnectionLost` if a write in `send` failed."""
        if not self.queue and self._failure is None:
            self._work = trio.Event()
            self._idle = True
            try:
                await self._work.wait()
            finally:
                self._idle = False
        await trio.lowlevel.checkpoint()  # the reader goes first: perhaps the connection has ended
        if self._failure is not None:
            raise self._failure

    async def write_next(self) -> None:
        """Write the first request of the queue, or the rest of it."""
        exchange = self.queue[0]
        if exchange.unwritten is None and exchange.is_empty:
            self.queue.popleft()
            return
        await self._write(exchange)
        self.queue.popleft()
        self._end(exchange)

    async def write_ahead(self, exchange: Exchange) -> None:
        """Write a request before those in the queue, none of which may be begun."""
        await self._write(exchange)
        self._end(exchange)

    async def _write(self, exchange: Exchange) -> None:
        with losing():
            rest = self._begin(exchange) if exchange.unwritten is None else exchange.unwritten
            await self._stream.send_all(rest)

    def _begin(self, exchange: Exchange) -> memoryview:
        """From here on the request is perhaps written; raises `Fenced` if it must not be."""
        self._correlation_id = (self._correlation_id + 1) % 2**31
        exchange.correlation_id = self._correlation_id
        data = exchange.encode(self._client_id)
        exchange.request_bytes = len(data)
        # Under its lock, nobody can shut the fence between the check and the mark.
        with self._fence.lock:
            self._fence.check()
            exchange.bytes_before = getattr(self._transport, "bytes_sent", None)
            self._in_flight.begin(exchange)
            exchange.write_started = True
        self._in_flight.watch(exchange)
        exchange.unwritten = memoryview(data)
        return exchange.unwritten

    def _end(self, exchange: Exchange) -> None:
        self._in_flight.written(exchange)
        if exchange.on_sent is not None:
            exchange.on_sent(exchange)

    def unanswered(self) -> list[Exchange]:
        """After the end: the requests without a response, in order. Their `write_started` is final."""
        begun = set(self._in_flight.exchanges)
        not_begun = [one for one in self.queue if not one.write_started and one not in begun]
        sent = getattr(self._transport, "bytes_sent", None)
        for exchange in self._in_flight.exchanges:
            # Exact, since only the last one can be without a byte, and nothing was written after it.
            exchange.write_started = exchange.bytes_before is None or exchange.bytes_before != sent
            exchange.unwritten = None
        return [*self._in_flight.exchanges, *not_begun]
