"""The network between three nodes, and between them and clients, of which a part can be cut off.

A proxy stands before each listener. What is cut off is held, both ways, as by a network that drops every
packet: connections stay open and nothing comes. When it heals, what was held goes on. Needs no rights.
"""

from __future__ import annotations

import contextlib
import re
import struct
import threading
from collections.abc import Callable, Mapping
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING

import trio

from tests.kafka.node import CONTROLLER

if TYPE_CHECKING:
    from typing_extensions import Self

#: The listener of the nodes among themselves, and the one of clients.
INSIDE, CLIENTS = "INSIDE", "CLIENTS"
#: Settings of a cluster whose nodes talk to each other through a `Network`.
THROUGH_NETWORK = {"inter.broker.listener.name": INSIDE}

#: Stands for all clients where the number of a node would be.
_CLIENT = 0


class Network:
    """Proxies of the listeners `INSIDE`, `CLIENTS`, and the controllers', between ``with`` and its end.

    They run in a thread of their own. Call `isolate`, `hide` and `heal` from a thread that is not trio's.
    """

    def __init__(self) -> None:
        self._held: dict[frozenset[int], trio.Event] = {}
        self._ready = threading.Event()
        self._thread = threading.Thread(target=trio.run, args=(self._run,), name="network", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        self._ready.wait()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._do(self._nursery.cancel_scope.cancel)
        self._thread.join()

    def before(self, node: int, ports: Mapping[str, int]) -> dict[str, int]:
        """The ports where others reach `node`, whose own are `ports`, by the listeners' names."""
        proxied = {name: port for name, port in ports.items() if name in (INSIDE, CLIENTS, CONTROLLER)}
        return {
            **ports,
            **{
                name: trio.from_thread.run(self._listen, node, name, port, trio_token=self._token)
                for name, port in proxied.items()
            },
        }

    def isolate(self, node: int, nodes: int = 3) -> None:
        """Cut `node` off from the other ones, of `nodes` in all, and from none of the clients."""
        others = [other for other in range(1, nodes + 1) if other != node]
        self._do(partial(self._cut, [frozenset((node, other)) for other in others]))

    def hide(self, node: int) -> None:
        """Cut `node` off from clients, and from none of the other nodes."""
        self._do(partial(self._cut, [frozenset((node, _CLIENT))]))

    def heal(self) -> None:
        """Let everything through again."""
        self._do(self._heal)

    def _do(self, what: Callable[[], None]) -> None:
        trio.from_thread.run_sync(what, trio_token=self._token)

    def _cut(self, pairs: list[frozenset[int]]) -> None:
        for pair in pairs:
            self._held.setdefault(pair, trio.Event())

    def _heal(self) -> None:
        for event in self._held.values():
            event.set()
        self._held.clear()

    async def _run(self) -> None:
        async with trio.open_nursery() as self._nursery:
            self._token = trio.lowlevel.current_trio_token()
            self._ready.set()
            await trio.sleep_forever()

    async def _listen(self, node: int, name: str, port: int) -> int:
        (listener,) = await trio.open_tcp_listeners(0, host="127.0.0.1")
        handler = partial(self._forward, node, name, port)
        self._nursery.start_soon(trio.serve_listeners, handler, [listener])
        return int(listener.socket.getsockname()[1])

    async def _forward(self, node: int, name: str, port: int, caller: trio.SocketStream) -> None:
        """Carry one connection until either side ends it."""
        async with caller:
            with contextlib.suppress(OSError, trio.BrokenResourceError):
                first = await caller.receive_some()
                if not first:
                    return
                pair = frozenset((node, _CLIENT if name == CLIENTS else _caller(first)))
                await self._let_through(pair)
                async with await trio.open_tcp_stream("127.0.0.1", port) as callee:
                    await callee.send_all(first)
                    async with trio.open_nursery() as nursery:
                        nursery.start_soon(self._carry, pair, caller, callee, nursery.cancel_scope)
                        nursery.start_soon(self._carry, pair, callee, caller, nursery.cancel_scope)

    async def _carry(
        self, pair: frozenset[int], source: trio.SocketStream, to: trio.SocketStream, both: trio.CancelScope
    ) -> None:
        with contextlib.suppress(trio.BrokenResourceError):
            async for data in source:
                await self._let_through(pair)
                await to.send_all(data)
        await self._let_through(pair)
        both.cancel()

    async def _let_through(self, pair: frozenset[int]) -> None:
        while (event := self._held.get(pair)) is not None:
            await event.wait()


def _caller(first: bytes) -> int:
    """Which node begins a connection with these bytes.

    Nodes name themselves by the client id of their requests: as ``broker-1-fetcher-0``, ``raft-client-1`` or
    ``1``. It comes after size, API, version and correlation id.
    """
    (length,) = struct.unpack_from(">h", first, 12)
    client_id = first[14 : 14 + length]
    number = re.search(rb"\d+", client_id)
    if number is None:
        raise ValueError(f"a node that calls itself {client_id!r}")
    return int(number[0])
