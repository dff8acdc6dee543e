"""A connection to the broker, over any trio stream: read a request, handle it, answer, in order.

This is where scripted faults cost time or connections; everything waits by trio's clock, so that a broker
in the caller's own loop works with a mock clock.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Generator
from contextlib import contextmanager

import trio

from ._cluster import Cluster
from ._faults import Plan, Rule
from ._handlers import Reply, Session, handle, targets
from ._watching import InLoop, watching
from ._wire import BadRequest, FrameBuffer, Request, decode_request, encode_response

logger = logging.getLogger("trio_kprod.testing")

_RECEIVE_SIZE = 65536


class Connections:
    """The connections being served, so that they can be counted and cut."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._cuts: set[Callable[[], None]] = set()

    def __len__(self) -> int:
        return len(self._cuts)

    @contextmanager
    def scope(self) -> Generator[None]:
        """A connection: what runs inside is cancelled when it is cut."""
        in_loop = InLoop()
        with trio.CancelScope() as scope:

            def cut() -> None:
                in_loop(scope.cancel)

            with self._lock:
                self._cuts.add(cut)
            try:
                yield
            finally:
                with self._lock:
                    self._cuts.discard(cut)

    def cut_all(self) -> None:
        """Cut every connection; thread-safe."""
        with self._lock:
            cuts = list(self._cuts)
        for cut in cuts:
            cut()


async def serve_connection(cluster: Cluster, stream: trio.abc.Stream, connections: Connections) -> None:
    """Serve one client until it leaves, sends what cannot be read, or is cut. The stream is closed.

    Whatever goes wrong with a connection ends that connection only: no `Exception` leaves.
    """
    try:
        with connections.scope():
            cluster.changed()
            await _serve(cluster, stream)
    except BadRequest as error:
        logger.info("closing a connection: %s", error)
    except (trio.BrokenResourceError, trio.ClosedResourceError) as error:
        logger.debug("a connection broke: %r", error)
    except Exception:  # a bug of the broker's must not end the other connections
        logger.exception("closing a connection: the broker failed to handle a request")
    finally:
        # No TLS farewell: it could block on a client that does not read.
        with trio.CancelScope(shield=True):
            await trio.aclose_forcefully(stream)
        cluster.changed()


async def _serve(cluster: Cluster, stream: trio.abc.Stream) -> None:
    if not cluster.accept():
        return
    conversation = _Conversation(cluster, stream)
    buffer = FrameBuffer(cluster.options.max_request_bytes)
    while data := await stream.receive_some(_RECEIVE_SIZE):
        buffer.feed(data)
        while (frame := buffer.next_frame()) is not None:
            if not await conversation.take(decode_request(frame)):
                return


class _Conversation:
    """What is known of one client between its requests."""

    def __init__(self, cluster: Cluster, stream: trio.abc.Stream) -> None:
        self._cluster = cluster
        self._stream = stream
        self._session = Session(authenticated=cluster.options.sasl_users is None)
        # KIP-368: a session that is not renewed in time ends with the next request.
        self._expires_at = float("inf")

    async def take(self, request: Request) -> bool:
        """Handle a request from arrival to answer. Returns whether the connection stays."""
        cluster = self._cluster
        self._check_expiry(request)
        plan = cluster.plan(request.api.name, targets(cluster, request))
        cluster.count_request(request.api.name)
        await self._stall(plan, after_append=False)
        if plan.drop is not None and plan.drop.after == "request":
            return False
        reply = await self._handle(request, plan)
        if plan.drop is not None:
            return False
        await self._stall(plan, after_append=True)
        if reply.response is not None:
            await self._stream.send_all(encode_response(request, reply.response))
        return not reply.close

    async def _handle(self, request: Request, plan: Plan) -> Reply:
        reply = handle(self._cluster, request, plan, self._session)
        if reply.wait:
            reply = await self._wait_for_more(request, plan, reply)
        if request.api.name == "SaslAuthenticate" and self._session.authenticated:
            self._expires_at = trio.current_time() + (
                self._cluster.options.sasl_session_lifetime or float("inf")
            )
        return reply

    async def _wait_for_more(self, request: Request, plan: Plan, reply: Reply) -> Reply:
        with trio.move_on_after(reply.wait), watching(self._cluster) as changes:
            while (reply := handle(self._cluster, request, plan, self._session)).wait:
                await changes.wait()
        return reply

    async def _stall(self, plan: Plan, *, after_append: bool) -> None:
        delay, silence = plan.delay, plan.held_by(after_append=after_append)
        if delay is not None and delay.after_append == after_append:
            await trio.sleep(delay.seconds)
        if silence is not None:
            await self._hold(silence)

    async def _hold(self, rule: Rule) -> None:
        with watching(self._cluster) as changes:
            while rule.active:
                await changes.wait()

    def _check_expiry(self, request: Request) -> None:
        late = trio.current_time() > self._expires_at
        if late and request.api.name not in ("SaslHandshake", "SaslAuthenticate"):
            raise BadRequest(f"{request.api.name} after the session expired")
