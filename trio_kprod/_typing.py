"""The types of keys, values and options, for type checkers. Nothing in here runs.

A `Producer` has two type parameters: what its key serializer takes, and what its value serializer takes. Both
are bytes where there is none. ``Producer`` alone means ``Producer[bytes, bytes]``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias

from ._instruments import Instrument
from ._messages import Item, Message, Undelivered
from ._settings import NamedSettings

if TYPE_CHECKING:
    from typing_extensions import TypeVar

    # A producer takes keys and values, so one that takes more can stand where one that takes less is wanted.
    K = TypeVar("K", contravariant=True, default=bytes)
    V = TypeVar("V", contravariant=True, default=bytes)
    # Of a function without annotations, such as a lambda, it is not known what it takes.
    Key = TypeVar("Key", default=Any)
    Value = TypeVar("Value", default=Any)
else:
    from typing import TypeVar

    K, V, Key, Value = map(TypeVar, ("K", "V", "Key", "Value"))

# Of aliases.
T = TypeVar("T")
_K = TypeVar("_K")
_V = TypeVar("_V")
_T = TypeVar("_T", contravariant=True)


class KafkaSerializer(Protocol[_T]):
    """An object like kafka-python's `Serializer`."""

    def serialize(self, topic: str, headers: Any, data: _T, /) -> bytes | None: ...


class OlderKafkaSerializer(Protocol[_T]):
    """The same, as before kafka-python 3."""

    def serialize(self, topic: str, data: _T, /) -> bytes | None: ...


#: What makes bytes of keys or of values.
Serializer: TypeAlias = Callable[[T], "bytes | None"] | KafkaSerializer[T] | OlderKafkaSerializer[T]

#: What `send_many` takes for one message.
Sendable: TypeAlias = tuple[_K | None, _V | None] | Item[_K, _V] | Message | _V | None


class ProducerOptions(NamedSettings, total=False):
    """The options of `open_producer`, but for the servers and the serializers.

    A function that passes them on has them in its signature::

        def open_ours(**options: Unpack[ProducerOptions]) -> ProducerScope:
            return open_producer("ours:9092", **options)

    So a type checker knows what it takes.
    """

    instruments: Iterable[Instrument]
    on_undelivered: Callable[[Undelivered], object] | None
    logger: logging.Logger | logging.LoggerAdapter[Any] | None
