"""What type checkers make of the public API. It is never run: mypy and pyright check it, as users do.

Each comment that silences an error stands where there must be one: both checkers are set to complain of
comments that silence nothing.
"""

# pyright: strict, reportUnnecessaryTypeIgnoreComment=true

from __future__ import annotations

import json
import os
from collections.abc import AsyncIterator, Iterator

from typing_extensions import assert_type

import trio_kprod
from trio_kprod.testing import (
    Broker,
    MemoryBroker,
    Proxy,
    Rule,
    open_broker,
    open_memory_producer,
    open_proxy,
)


def items() -> Iterator[bytes | tuple[bytes, bytes]]:
    yield b"value"
    yield b"key", b"value"


async def more_items() -> AsyncIterator[bytes]:
    yield b"value"


async def sending() -> None:
    async with trio_kprod.open_producer("localhost:9092", acks=1) as producer:
        assert_type(producer, trio_kprod.Producer)
        producer.send_nowait("topic", b"value", key=b"key", headers=[("name", b"1")], partition=0)
        await producer.send("topic", None, key=b"key", timestamp_ms=1)
        assert_type(await producer.send_many("topic", items()), int)
        assert_type(await producer.send_many("topic", more_items()), int)
        assert_type(await producer.send_and_wait("topic", b"value"), trio_kprod.RecordMetadata)
        receipt = producer.send_tracked_nowait("topic", b"value")
        assert_type(receipt, trio_kprod.Receipt)
        assert_type(await producer.send_tracked("topic", b"value"), trio_kprod.Receipt)
        assert_type(await receipt, trio_kprod.RecordMetadata)
        assert_type(receipt.result(), trio_kprod.RecordMetadata)
        assert_type(receipt.done, bool)
        assert_type(await producer.partitions_for("topic"), list[int])
        producer.deliver_nowait()
        await producer.flush()
    assert_type(producer.statistics(), trio_kprod.ProducerStatistics)
    assert_type(producer.undelivered, tuple[trio_kprod.Undelivered, ...])
    producer.send_nowait("topic", b"value", kee=b"key")  # type: ignore[call-arg]
    producer.send_nowait(1, b"value")  # type: ignore[arg-type]


async def translating() -> None:
    settings = trio_kprod.settings_from({"linger.ms": "5"}, prefix="KAFKA_", acks=1)
    assert_type(settings, trio_kprod.ProducerSettings)
    async with trio_kprod.open_producer(**settings) as producer:
        assert_type(producer, trio_kprod.Producer)
    async with trio_kprod.open_producer(
        **trio_kprod.settings_from(os.environ, prefix="K_"), value_serializer=str.encode
    ):
        pass
    async with open_memory_producer(MemoryBroker(), **client_settings()):
        pass
    trio_kprod.settings_from({}, linger_ms=5)  # type: ignore[call-arg]
    trio_kprod.settings_from({}, delivery_interval="5")  # type: ignore[arg-type]


def client_settings() -> trio_kprod.ClientConfig:
    return {"compression_type": "zstd", "compression_level": 3}


async def failing() -> None:
    try:
        await sending()
    except trio_kprod.DeliveryFailed as error:
        assert_type(error.undelivered, tuple[trio_kprod.Undelivered, ...])
        assert_type(error.omitted, int)
        for undelivered in error.undelivered:
            assert_type(undelivered.message, trio_kprod.Message)
            assert_type(undelivered.maybe_written, bool)
    except trio_kprod.ConnectFailed as error:
        assert_type(error.causes, dict[str, BaseException])


class Counting(trio_kprod.Instrument):
    """Hooks take what they look at."""

    def error(self, *, error: BaseException) -> None:
        print(error)


def to_json(value: object) -> bytes:
    return json.dumps(value).encode()


def lost(undelivered: trio_kprod.Undelivered) -> None:
    print(undelivered.cause)


def settings() -> None:
    open_producer = trio_kprod.open_producer
    open_producer(["a:1", "b:2"], value_serializer=to_json, on_undelivered=lost, instruments=[Counting()])
    open_producer(acks="all", compression_type="zstd", security_protocol="SASL_SSL", request_timeout_ms=500)
    open_producer(compression_type=None, client_id=None, ssl_cafile=None)
    config: trio_kprod.ClientConfig = {"acks": 0, "sasl_mechanism": "PLAIN"}
    open_producer("localhost:9092", max_retries=3, **config)
    # A name that is misspelt, and values that are none of the option's.
    open_producer(akcs=1)  # type: ignore[call-overload]
    open_producer(acks=2)  # type: ignore[call-overload]
    open_producer(compression_type="zip")  # type: ignore[call-overload]
    open_producer(max_queue_size="1")  # type: ignore[call-overload]
    open_producer(on_undelivered=sending)  # type: ignore[arg-type]
    trio_kprod.ClientConfig(linger_ms=5)  # type: ignore[typeddict-unknown-key]


async def testing() -> None:
    with open_broker(topics={"topic": 1}) as broker, open_proxy(broker) as proxy:
        assert_type(broker, Broker)
        assert_type(proxy, Proxy)
        assert_type(broker.answer("Produce", error="NOT_ENOUGH_REPLICAS"), Rule)
        assert_type(broker.answer("Produce", error=19), Rule)
        assert_type(broker.topics, dict[str, int])
    async with open_memory_producer(MemoryBroker()) as producer:
        assert_type(producer, trio_kprod.Producer)
