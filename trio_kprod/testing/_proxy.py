"""The fault proxy: TCP connections to a Kafka, or to anything, through a port where things go wrong."""

from __future__ import annotations

import logging
from typing import Literal

import trio

from ._broker import Broker
from ._checks import check_port
from ._cluster import Address
from ._faults import Rule
from ._link import Link
from ._network_faults import (
    Blackhole,
    Cut,
    Direction,
    Latency,
    NetworkFault,
    Overwrite,
    Reject,
    Replace,
    Trickle,
)
from ._server import Server
from ._traffic import Traffic
from ._watching import Observable

logger = logging.getLogger("trio_kprod.testing")

_DIRECTIONS: dict[str, Direction] = {"request": "requests", "answer": "answers"}


def open_proxy(upstream: Broker | str | tuple[str, int], *, host: str = "127.0.0.1", port: int = 0) -> Proxy:
    """A TCP proxy whose connections break on request.

    Use it as ``with open_proxy(broker) as proxy:`` or with ``async with``.

    It runs in a thread of its own, for any client. While its block runs, an embedded broker tells clients
    the proxy's address instead of its own. A real Kafka does so if its ``advertised.listeners`` names the
    proxy, which then needs a `port`; else clients go past the proxy after their first question.

    Args:
        upstream: where connections go: an `open_broker` that is running, ``"host:port"``, or host and port.
        host: the address to listen on.
        port: the port to listen on; 0 takes a free one.

    Raises:
        TypeError, ValueError: `upstream`, `host` or `port` is no address.
        OSError: on entering, if it cannot listen there.
        RuntimeError: on entering, if the broker is not running.
    """
    if not isinstance(upstream, Broker):
        upstream = _address(upstream)
    return Proxy(upstream, Address(host, port))


class Proxy(Server, Observable):
    """What `open_proxy` gives. It can be entered once.

    It carries bytes between each client and the upstream, in two directions, ``"requests"`` and
    ``"answers"``. Most faults are about *frames*: a Kafka request or answer with the length it begins with.
    Over TLS, which the proxy cannot look into, a frame is a TLS record. In any other protocol it is what
    arrived at once. All faults use the same few words to say which frames they are for, and how often:

    - `direction`: ``"requests"`` or ``"answers"``; None is both.
    - `api`: the name of the request in Kafka's protocol guide, such as ``"Produce"``, also for the answer to
      it; None is any. Frames in TLS have no name.
    - `times`: for how many matching frames, of all connections together; None is all of them.
    - `skip`: how many matching frames pass before the first.

    Each returns a `Rule`, which counts its `hits` and can be removed. For one frame the first match of each
    kind of fault applies. Every method may be called from any thread, before and after the block as well
    unless it says otherwise, and none blocks for longer than a moment but `wait_until`.
    """

    _kind = "proxy"

    def __init__(self, upstream: Broker | Address, address: Address) -> None:
        super().__init__(address)
        self._upstream = upstream
        self._advertised_before: Address | None = None
        self._traffic = self._watched = Traffic()
        self._links: set[Link] = set()

    def __repr__(self) -> str:
        state = "running" if self._port else "not running"
        return f"<Proxy {self._address} to {self._target()}, {state}, {self.connections} connections>"

    @property
    def bootstrap_servers(self) -> str:
        """``"host:port"``: what to give to a client."""
        return str(self._address)

    # -- what happened

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return self._traffic.open

    @property
    def connections_accepted(self) -> int:
        """How many connections were accepted so far, also those that were ended at once."""
        return self._traffic.accepted

    @property
    def bytes_forwarded(self) -> dict[Direction, int]:
        """How many bytes were passed on so far, by their direction."""
        return dict(self._traffic.forwarded)

    # -- faults

    def drop_connections(
        self,
        after: Literal["accept", "request", "answer"] = "request",
        api: str | None = None,
        *,
        forward: int | None = 0,
        reset: bool = False,
        times: int | None = 1,
        skip: int = 0,
    ) -> Rule:
        """End the connection of a matching frame, or a connection as soon as it is accepted.

        ``"request"`` ends it before the upstream has got the request (or, with `forward`, right behind it);
        ``"answer"`` when the upstream has answered: it has done what it was asked, which the client cannot
        know. With ``"accept"`` it ends before any byte is sent, and `times` and `skip` count connections.

        Args:
            after: when the connection ends.
            api: see `Proxy`.
            forward: how many bytes, from the first of that frame on, still go through: 10 is the middle of
                most answers, 0 is nothing, None the whole frame; more than the frame has goes on in the next.
            reset: end it towards the client with a reset (RST), not in order (FIN).
            times: see `Proxy`.
            skip: see `Proxy`.
        """
        if after == "accept":
            if api is not None or forward != 0:
                raise ValueError("with after='accept' there is no api, and nothing to forward")
            return self._script(Reject(reset=reset, times=times, skip=skip))
        if after not in _DIRECTIONS:
            raise ValueError(f"after must be 'accept', 'request' or 'answer'; got {after!r}")
        direction = _DIRECTIONS[after]
        return self._script(
            Cut(api, direction=direction, forward=forward, reset=reset, times=times, skip=skip)
        )

    def half_close(
        self,
        direction: Direction,
        api: str | None = None,
        *,
        forward: int | None = 0,
        times: int | None = 1,
        skip: int = 0,
    ) -> Rule:
        """End one direction of a connection (FIN) at a matching frame, while the other lives on.

        What still comes in this direction is swallowed. For `forward` see `drop_connections`.
        """
        return self._script(Cut(api, direction=direction, forward=forward, half=True, times=times, skip=skip))

    def delay(
        self,
        direction: Direction | None = None,
        api: str | None = None,
        *,
        seconds: float,
        times: int | None = 1,
        skip: int = 0,
    ) -> Rule:
        """Hold a frame for `seconds`, and what comes behind it in its direction of the connection."""
        return self._script(Latency(api, direction=direction, seconds=seconds, times=times, skip=skip))

    def trickle(
        self,
        direction: Direction | None = None,
        api: str | None = None,
        *,
        size: int = 1,
        seconds: float,
        times: int | None = 1,
        skip: int = 0,
    ) -> Rule:
        """Forward a frame `size` bytes at a time, with a pause of `seconds` after each."""
        return self._script(
            Trickle(api, direction=direction, size=size, seconds=seconds, times=times, skip=skip)
        )

    def silence(
        self,
        direction: Direction | None = None,
        api: str | None = None,
        *,
        times: int | None = None,
        skip: int = 0,
    ) -> Rule:
        """Hold frames, and what comes behind them, until `resume` or the rule's own `remove`: a black hole.

        Connections are accepted and stay open. Without an api, ends of connections do not get through either,
        as when a cable was pulled: neither side learns that the other is gone.
        """
        return self._script(Blackhole(api, direction=direction, times=times, skip=skip))

    def resume(self) -> None:
        """End every silence: what was held goes on now."""
        self._remove(Blackhole)

    def corrupt(
        self,
        direction: Direction,
        api: str | None = None,
        *,
        at: int,
        data: bytes | None = None,
        times: int | None = 1,
        skip: int = 0,
    ) -> Rule:
        """Change bytes of a frame, from the one numbered `at` on.

        Args:
            direction: see `Proxy`.
            api: see `Proxy`.
            at: a negative one counts from the frame's end, one beyond it means the last byte. The bytes 0 to
                3 are the frame's length.
            data: what to put there; None inverts one byte. What goes beyond the frame's end is left out.
            times: see `Proxy`.
            skip: see `Proxy`.
        """
        return self._script(Overwrite(api, direction=direction, at=at, data=data, times=times, skip=skip))

    def replace(
        self,
        direction: Direction,
        api: str | None = None,
        *,
        data: bytes,
        times: int | None = 1,
        skip: int = 0,
    ) -> Rule:
        """Forward `data` in the place of a frame: garbage instead of an answer."""
        return self._script(Replace(api, direction=direction, data=data, times=times, skip=skip))

    def clear_faults(self) -> None:
        """Forget every fault; what a silence held goes on."""
        self._remove(NetworkFault)

    def disconnect_all(self, *, reset: bool = False) -> None:
        """End every connection, in order (FIN) or with a reset (RST) towards the clients.

        Clients may connect again at once. Only while the proxy runs.
        """

        def end() -> None:
            for link in self._links:
                link.end(reset=reset)

        self._call(end)

    def _script(self, fault: NetworkFault) -> Rule:
        return self._traffic.script(fault)

    def _remove(self, kind: type[NetworkFault]) -> None:
        with self._traffic.lock:
            self._traffic.rules.remove(kind)

    # -- as a server

    def _target(self) -> Address:
        return self._upstream if isinstance(self._upstream, Address) else Address(*self._upstream.address)

    def _start(self) -> None:
        if isinstance(self._upstream, Broker):
            self._upstream._running_port()
        super()._start()

    def _began(self) -> None:
        if isinstance(self._upstream, Broker):
            self._advertised_before = self._upstream._cluster.advertised
            self._upstream.advertise(*self._address)

    def _stop(self) -> None:
        super()._stop()
        if isinstance(self._upstream, Broker) and self._advertised_before is not None:
            self._upstream.advertise(*self._advertised_before)

    async def _serve(self, stream: trio.SocketStream) -> None:
        link = Link(self._traffic, stream)
        self._links.add(link)
        try:
            await link.run(self._target())
        except Exception:  # a bug of the proxy's must not end the other connections
            logger.exception("ending a connection: the proxy failed")
        finally:
            self._links.discard(link)


def _address(upstream: object) -> Address:
    if isinstance(upstream, str):
        host, _, port = upstream.rpartition(":")
        if host and port.isdecimal():
            check_port("a port", int(port))
            return Address(host.strip("[]"), int(port))
    elif isinstance(upstream, tuple) and len(upstream) == 2:
        host, port = upstream
        if isinstance(host, str) and isinstance(port, int):
            check_port("a port", port)
            return Address(host, port)
    text = "upstream must be a broker of open_broker, 'host:port' or a tuple of host and port"
    error = ValueError if isinstance(upstream, (str, tuple)) else TypeError
    raise error(f"{text}; got {upstream!r}")
