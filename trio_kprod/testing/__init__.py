"""A Kafka broker for tests, examples and trying things out. Not imported by `trio_kprod` itself.

`open_broker` serves the Kafka protocol on a loopback port, out of memory, to any client:

    with trio_kprod.testing.open_broker(partitions=4) as broker:
        ...                             # give broker.bootstrap_servers to a client
        broker.records("greetings")     # what arrived, as plain values

Tests script what goes wrong, with the same few words for every kind of fault:

    broker.answer("Produce", error="NOT_ENOUGH_REPLICAS", times=2)
    broker.drop_connections(after="append")         # written, but the answer is lost
    broker.silence("Metadata"); ...; broker.resume()

`open_proxy` puts a network in front of it, or in front of any other server, that can be made to fail:

    with trio_kprod.testing.open_proxy(broker) as proxy:
        proxy.drop_connections("answer", "Produce", forward=10)     # in the middle of the answer
        proxy.silence(); ...; proxy.resume()                        # as if a cable were pulled

`MemoryBroker` is the same broker in the caller's own loop, and `open_memory_producer` a producer that uses
it there. They have no thread and no socket, so they run in virtual time. `trio_kprod.testing.fixtures` has
the brokers and the proxy for pytest.
"""

from __future__ import annotations

from .._speedups import speedups_in_use as speedups_in_use
from ._broker import Broker as Broker, open_broker as open_broker
from ._codes import Code as Code
from ._controls import BrokerControls as BrokerControls
from ._faults import (
    Answer as Answer,
    Delay as Delay,
    Drop as Drop,
    Fault as Fault,
    Rule as Rule,
    Silence as Silence,
)
from ._log import Batch as Batch, Record as Record
from ._memory import MemoryBroker as MemoryBroker, MemoryNetwork as MemoryNetwork
from ._producer import open_memory_producer as open_memory_producer
from ._proxy import Proxy as Proxy, open_proxy as open_proxy

__all__ = [
    "Answer",
    "Batch",
    "Broker",
    "BrokerControls",
    "Code",
    "Delay",
    "Drop",
    "Fault",
    "MemoryBroker",
    "MemoryNetwork",
    "Proxy",
    "Record",
    "Rule",
    "Silence",
    "open_broker",
    "open_memory_producer",
    "open_proxy",
    "speedups_in_use",
]

# Tracebacks and help() show the names that users write.
for _name in __all__:
    globals()[_name].__module__ = __name__
