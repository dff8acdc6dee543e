"""The same producer without thread or socket, for tests in virtual time."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any, overload

import trio

from .._client import Client, LoopHost
from .._producer import ProducerScope
from .._settings import make_settings
from ._memory import MemoryBroker, MemoryNetwork

if TYPE_CHECKING:
    from typing_extensions import Unpack

    from .._typing import Key, ProducerOptions, Serializer, Value


class _MemoryHost(LoopHost):
    """Runs the client in the caller's loop, beside the broker's end of its connections."""

    def __init__(self, broker: MemoryBroker) -> None:
        self._broker = broker
        self._network: MemoryNetwork

    async def open_stream(self, host: str, port: int) -> trio.abc.Stream:
        return await self._network.open_stream(host, port)

    async def run(self, main: Callable[[], Awaitable[None]]) -> None:
        async with trio.open_nursery() as nursery:
            self._network = MemoryNetwork(self._broker, nursery)
            await main()
            nursery.cancel_scope.cancel()


@overload
def open_memory_producer(
    broker: MemoryBroker | None = None,
    *,
    key_serializer: None = None,
    value_serializer: None = None,
    **options: Unpack[ProducerOptions],
) -> ProducerScope[bytes, bytes]: ...
@overload
def open_memory_producer(
    broker: MemoryBroker | None = None,
    *,
    key_serializer: None = None,
    value_serializer: Serializer[Value],
    **options: Unpack[ProducerOptions],
) -> ProducerScope[bytes, Value]: ...
@overload
def open_memory_producer(
    broker: MemoryBroker | None = None,
    *,
    key_serializer: Serializer[Key],
    value_serializer: None = None,
    **options: Unpack[ProducerOptions],
) -> ProducerScope[Key, bytes]: ...
@overload
def open_memory_producer(
    broker: MemoryBroker | None = None,
    *,
    key_serializer: Serializer[Key],
    value_serializer: Serializer[Value],
    **options: Unpack[ProducerOptions],
) -> ProducerScope[Key, Value]: ...
def open_memory_producer(
    broker: MemoryBroker | None = None,
    *,
    key_serializer: Serializer[Any] | None = None,
    value_serializer: Serializer[Any] | None = None,
    **options: Unpack[ProducerOptions],
) -> ProducerScope[Any, Any]:
    """Open a producer that runs wholly in the caller's loop, on a `MemoryBroker`.

    It is the same code as with ``open_producer(own_thread=False)``, which takes the same options, but over
    streams in memory: with pytest-trio's ``autojump_clock`` an hour of outage takes no time.

    With SASL, use PLAIN: other mechanisms compute in a thread, and such a clock does not wait for threads.

    Args:
        broker: the broker; by default a new one, for tests that do not look at what arrived.
        key_serializer, value_serializer: as with `open_producer`.
        **options: the others of `open_producer`, but `bootstrap_servers`.

    Raises:
        TypeError, ValueError: at the call, an option is wrong.
    """
    if options.get("own_thread"):
        raise ValueError("own_thread must be False, or left out: this producer runs in the caller's loop")
    options["own_thread"] = False
    broker = broker or MemoryBroker()
    settings = make_settings(
        broker.bootstrap_servers,
        key_serializer=key_serializer,
        value_serializer=value_serializer,
        **options,
    )
    host = _MemoryHost(broker)
    return ProducerScope(settings, Client(settings, host, network=host), host)
