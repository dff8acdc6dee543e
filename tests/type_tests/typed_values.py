"""What type checkers know of keys and values: it follows from the serializers. It is never run.

Each comment that silences an error stands where there must be one, as in `public_api`.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from typing_extensions import Unpack, assert_type

from trio_kprod import (
    DeliveryFailed,
    Item,
    Message,
    Producer,
    ProducerOptions,
    ProducerScope,
    open_producer,
)
from trio_kprod.testing import MemoryBroker, open_memory_producer


@dataclass
class Order:
    number: int


class Refund(Order):
    """One that is taken wherever an order is."""


def encode_order(order: Order) -> bytes:
    return b"%d" % order.number


def encode_or_delete(order: Order) -> bytes | None:
    return encode_order(order) if order.number else None


def encode_anything(value: object) -> bytes:
    return json.dumps(value).encode()


class OrderSerializer:
    """As kafka-python's `Serializer`."""

    def serialize(self, topic: str, headers: Sequence[tuple[str, bytes]], data: Order) -> bytes:
        return encode_order(data)


class OlderOrderSerializer:
    """As before kafka-python 3."""

    def serialize(self, topic: str, data: Order) -> bytes:
        return encode_order(data)


class LooseSerializer:
    """As kafka-python's own, which take anything."""

    def serialize(self, topic: str, headers: Any, data: Any) -> Any: ...


def inferred() -> None:
    """Both functions that open a producer tell the same."""
    memory = open_memory_producer
    assert_type(open_producer(), ProducerScope[bytes, bytes])
    assert_type(memory(), ProducerScope[bytes, bytes])
    assert_type(open_producer("kafka:9092", key_serializer=None, acks=1), ProducerScope[bytes, bytes])
    assert_type(open_producer(value_serializer=encode_order), ProducerScope[bytes, Order])
    assert_type(memory(value_serializer=encode_order), ProducerScope[bytes, Order])
    assert_type(open_producer(value_serializer=encode_or_delete), ProducerScope[bytes, Order])
    assert_type(open_producer(value_serializer=encode_anything), ProducerScope[bytes, object])
    assert_type(open_producer(key_serializer=str.encode), ProducerScope[str, bytes])
    assert_type(memory(MemoryBroker(), key_serializer=str.encode), ProducerScope[str, bytes])
    assert_type(
        open_producer(key_serializer=str.encode, value_serializer=encode_order, max_retries=3),
        ProducerScope[str, Order],
    )
    assert_type(
        memory(key_serializer=str.encode, value_serializer=encode_order, max_retries=3),
        ProducerScope[str, Order],
    )
    assert_type(open_producer(value_serializer=OrderSerializer()), ProducerScope[bytes, Order])
    assert_type(open_producer(value_serializer=OlderOrderSerializer()), ProducerScope[bytes, Order])
    # What is not known is not checked.
    assert_type(open_producer(value_serializer=LooseSerializer()), ProducerScope[bytes, Any])
    assert_type(
        open_producer(value_serializer=lambda value: json.dumps(value).encode()), ProducerScope[bytes, Any]
    )


def perhaps(encode: Callable[[str], bytes] | None) -> None:
    """A serializer that may be missing."""
    scope = open_producer(key_serializer=encode)
    assert_type(scope, ProducerScope[bytes, bytes] | ProducerScope[str, bytes])


async def without_serializers() -> None:
    async with open_producer() as producer:
        assert_type(producer, Producer)
        assert_type(producer, Producer[bytes, bytes])
        producer.send_nowait("topic", b"value", key=b"key")
        producer.send_nowait("topic", None, key=b"key")
        producer.send_nowait("topic", key=b"key")
        producer.send_nowait("topic", "value")  # type: ignore[arg-type]
        producer.send_nowait("topic", bytearray(b"value"))  # type: ignore[arg-type]
        producer.send_nowait("topic", b"value", key="key")  # type: ignore[arg-type]


async def with_serializers() -> None:
    async with open_producer(key_serializer=str.encode, value_serializer=encode_order) as producer:
        assert_type(producer, Producer[str, Order])
        producer.send_nowait("topic", Order(1), key="key")
        producer.send_nowait("topic", Refund(1))
        producer.send_nowait("topic", None, key="key")
        producer.send_nowait("topic", 5)  # type: ignore[arg-type]
        producer.send_nowait("topic", b"1")  # type: ignore[arg-type]
        producer.send_nowait("topic", Order(1), key=b"key")  # type: ignore[arg-type]
        producer.send_tracked_nowait("topic", 5)  # type: ignore[arg-type]
        await producer.send("topic", 5)  # type: ignore[arg-type]
        await producer.send_tracked("topic", 5)  # type: ignore[arg-type]
        await producer.send_and_wait("topic", 5)  # type: ignore[arg-type]
    async with open_memory_producer(value_serializer=encode_order) as in_memory:
        in_memory.send_nowait("topic", Order(1))
        in_memory.send_nowait("topic", 5)  # type: ignore[arg-type]


async def many(producer: Producer[str, Order], again: DeliveryFailed) -> None:
    orders = [Order(1), Order(2)]
    await producer.send_many("topic", orders)
    await producer.send_many("topic", (("key", order) for order in orders))
    await producer.send_many("topic", [Order(1), ("key", Order(2)), ("key", None), Item(Order(3), key="key")])
    await producer.send_many("topic", [Item(order) for order in orders])
    await producer.send_many("topic", [Item(key="key", headers=[("name", b"1"), ("empty", None)])])
    await producer.send_many("topic", some_orders())
    await producer.send_many("topic", [one.message for one in again.undelivered])
    apart = Item(Order(1), partition=3, timestamp_ms=7)
    await producer.send_many("topic", [apart])
    await producer.send_many("topic", [5])  # type: ignore[list-item]
    await producer.send_many("topic", [(5, Order(1))])  # type: ignore[list-item]
    await producer.send_many("topic", [Item(5)])  # type: ignore[arg-type]
    await producer.send_many("topic", [Item(Order(1), headers={"name": b"1"})])  # type: ignore[arg-type]
    await producer.send_many("topic", some_bytes())  # type: ignore[arg-type]
    await producer.send_many("topic", 5)  # type: ignore[arg-type]


async def some_orders() -> AsyncIterator[Order | tuple[str, Order] | Item[str, Order]]:
    yield Order(1)


def some_bytes() -> Iterator[bytes]:
    yield b"1"


def items() -> None:
    assert_type(Item(Order(1), key="key").value, Order | None)
    assert_type(Item(Order(1), key="key").key, str | None)


async def wants_refunds(producer: Producer[str, Refund]) -> None:
    await producer.send("topic", Refund(1))


async def variance(
    orders: Producer[str, Order], anything: Producer[Any, object], refunds: Producer[str, Refund]
) -> None:
    """A producer that takes more can stand for one that takes less."""
    await wants_refunds(orders)
    await wants_refunds(anything)
    takes_orders: Producer[str, Order] = refunds  # type: ignore[assignment]
    await takes_orders.send("topic", Order(1))


@asynccontextmanager
async def open_ours(**options: Unpack[ProducerOptions]) -> AsyncGenerator[Producer[bytes, Order], None]:
    """Passing options on."""
    async with open_producer("ours:9092", value_serializer=encode_order, **options) as producer:
        yield producer


def passed_on() -> None:
    open_ours(delivery_interval=1, acks="all")
    open_ours(delivery_interval="1")  # type: ignore[arg-type]
    open_producer(value_serializer=5)  # type: ignore[call-overload]
    open_memory_producer(delivery_interval="1")  # type: ignore[call-overload]
    open_memory_producer(akcs=1)  # type: ignore[call-overload]
    open_memory_producer(bootstrap_servers="kafka:9092")  # type: ignore[call-overload]


def messages(message: Message) -> None:
    assert_type(message.value, bytes | None)
