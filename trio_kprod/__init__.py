"""A background Kafka producer for trio: the scope of an ``async with`` block is the life of its deliveries.

::

    async with trio_kprod.open_producer("localhost:9092", delivery_interval=1.0) as producer:
        producer.send_nowait("greetings", b"hello", key=b"en")
    # here every accepted message was acknowledged, or `DeliveryFailed` has told which were not

It is not a consumer, has no transactions, and needs trio.

Two loops run in two threads: yours, and the client's in a worker thread. Each module knows only those that
are below it:

=====================  ==================================================================================
in your loop
-------------------------------------------------------------------------------------------------------
`_producer`            `open_producer` and `Producer`: accept, refuse, wait
`_lifetime`            the order of leaving, and which exception the user sees
`_intake`              from the arguments of a send to an entry: every check
`_room`                the queue: which messages come in, and which tasks wait
`_delivery`            the delivery task, the timer task, `settle`: from the queue to the client and back
`_buffer`, `_demand`   what was taken from the queue; when it is handed to the client
`_outcomes`            what became of messages: counts, instruments
`_receipts`            the outcome of one message, for any task that asks
`_telling`             where an undelivered message is reported: flush, callback, end of the block
`_ending`              refusing, giving up, crashing
`_ledger`              which accepted messages are unsettled
`_waiting`             one task waits, another ends that, or it is cancelled: never both
in the client's loop
-------------------------------------------------------------------------------------------------------
`_client`              connections, requests, SASL, sockets: all I/O
`_core`                what is sent when and what a response means, without I/O
on both sides
-------------------------------------------------------------------------------------------------------
`_settings`            every option and its check
`_instruments`         the hooks of those who watch
`_typing`              the types of keys, values and options, for type checkers
`_messages`, `_errors` the values and the errors
`_speedups`            whether parts of the above are C, and `_counters`, the fields that C shares with Python
`_kafka_python`        kafka-python's first import, without its warnings
for those who watch
-------------------------------------------------------------------------------------------------------
`instruments`          OpenTelemetry, Prometheus, statsd, events for logs; not imported from here
-------------------------------------------------------------------------------------------------------
for tests
-------------------------------------------------------------------------------------------------------
`testing`              an embedded broker, a fault proxy, and a producer in virtual time
=====================  ==================================================================================
"""

from __future__ import annotations

from . import _kafka_python as _kafka_python  # before all that imports kafka-python
from ._errors import (
    BufferOverflow as BufferOverflow,
    ConnectFailed as ConnectFailed,
    ConnectionLost as ConnectionLost,
    DeliveryAborted as DeliveryAborted,
    DeliveryFailed as DeliveryFailed,
    DeliveryTimedOut as DeliveryTimedOut,
    MessageTooLarge as MessageTooLarge,
    NoResponse as NoResponse,
    PartitioningFailed as PartitioningFailed,
    ProducerClosed as ProducerClosed,
    ProducerCrashed as ProducerCrashed,
    ProducerError as ProducerError,
    Refused as Refused,
    RetriesExhausted as RetriesExhausted,
    SettingsError as SettingsError,
    UnknownTopic as UnknownTopic,
)
from ._instruments import Instrument as Instrument
from ._messages import (
    Item as Item,
    Message as Message,
    ProducerStatistics as ProducerStatistics,
    RecordMetadata as RecordMetadata,
    Undelivered as Undelivered,
)
from ._producer import (
    Producer as Producer,
    ProducerScope as ProducerScope,
    open_producer as open_producer,
)
from ._receipts import Receipt as Receipt
from ._settings import (
    ClientConfig as ClientConfig,
    ProducerSettings as ProducerSettings,
    settings_from as settings_from,
    show_client_settings as _show_client_settings,
)
from ._typing import ProducerOptions as ProducerOptions
from ._version import __version__ as __version__

__all__ = [
    "BufferOverflow",
    "ClientConfig",
    "ConnectFailed",
    "ConnectionLost",
    "DeliveryAborted",
    "DeliveryFailed",
    "DeliveryTimedOut",
    "Instrument",
    "Item",
    "Message",
    "MessageTooLarge",
    "NoResponse",
    "PartitioningFailed",
    "Producer",
    "ProducerClosed",
    "ProducerCrashed",
    "ProducerError",
    "ProducerOptions",
    "ProducerScope",
    "ProducerSettings",
    "ProducerStatistics",
    "Receipt",
    "RecordMetadata",
    "Refused",
    "RetriesExhausted",
    "SettingsError",
    "Undelivered",
    "UnknownTopic",
    "__version__",
    "open_producer",
    "settings_from",
]


# Tracebacks and help() show the names that users write.
def _show_public_names() -> None:
    for name in __all__:
        if name != "__version__":
            globals()[name].__module__ = __name__


_show_public_names()
_show_client_settings(open_producer)
