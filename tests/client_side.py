"""Where faults of the client's side are staged: the embedded broker and a real Kafka, in the same words."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Callable, Generator
from typing import NamedTuple, Protocol

from tests.kafka.cluster import Cluster, Record
from tests.kafka.listeners import Listener, free_ports
from trio_kprod.testing import Broker, MemoryBroker, open_proxy

Address = tuple[str, int]

#: A name that only tests resolve.
NAME = "kafka.test"


class Link(NamedTuple):
    """A way to Kafka that can be cut.

    Attributes:
        servers: for clients that take it.
        cut: end every connection.
        slow_down: let each answer to a produce request take its time: there nearly always is one on its way.
    """

    servers: str
    cut: Callable[[], object]
    slow_down: Callable[[], object]


class Place(Protocol):
    """A Kafka, and a topic of it that nobody else uses. What it does blocks."""

    topic: str

    @property
    def servers(self) -> str:
        """Straight to it."""

    def link(self) -> contextlib.AbstractContextManager[Link]:
        """Another way to it."""

    def advertises_nowhere(self) -> contextlib.AbstractContextManager[tuple[str, Address]]:
        """Where it can be reached, and where it says it is: there connections are refused."""

    def advertises_name(self) -> tuple[Address, int]:
        """Where it can be reached, when it says that it is at `NAME`; and the port it says."""

    def count(self) -> int:
        """How many records the topic has."""

    def log(self) -> list[Record]:
        """What is in the topic, by partition and offset."""


class Embedded:
    """The embedded broker, which can be made to do all of that itself."""

    topic = "t"

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    @property
    def servers(self) -> str:
        return self._broker.bootstrap_servers

    @contextlib.contextmanager
    def link(self) -> Generator[Link, None, None]:
        def slow_down() -> None:
            self._broker.delay("Produce", 0.02, times=None, after_append=True)

        yield Link(self.servers, self._broker.disconnect_all, slow_down)

    @contextlib.contextmanager
    def advertises_nowhere(self) -> Generator[tuple[str, Address], None, None]:
        with _nobody_listens(0) as address:
            self._broker.advertise(*address)
            yield "{}:{}".format(*self._broker.address), address

    def advertises_name(self) -> tuple[Address, int]:
        ((port,),) = [ports.values() for ports in free_ports([NAME], 1)]
        self._broker.advertise(NAME, port)
        return self._broker.address, port

    def count(self) -> int:
        return len(self._broker.records(self.topic))

    def log(self) -> list[Record]:
        return log_of(self._broker, self.topic)


class Real:
    """A node that has a listener for each of these, and tells clients of another address than its own."""

    def __init__(self, cluster: Cluster, advertised: dict[str, int]) -> None:
        self.cluster = cluster
        self._advertised = advertised
        # By itself Kafka takes no time stamp that is more than an hour ahead of its clock.
        self.topic = cluster.new_topic(message_timestamp_after_max_ms=str(10**15))

    @property
    def servers(self) -> str:
        return self.cluster.bootstrap_servers

    @contextlib.contextmanager
    def link(self) -> Generator[Link, None, None]:
        with open_proxy(self._own("LINK"), port=self._advertised["LINK"]) as proxy:

            def slow_down() -> None:
                proxy.delay("answers", "Produce", seconds=0.02, times=None)

            yield Link(proxy.bootstrap_servers, proxy.disconnect_all, slow_down)

    @contextlib.contextmanager
    def advertises_nowhere(self) -> Generator[tuple[str, Address], None, None]:
        with _nobody_listens(self._advertised["NOWHERE"]) as address:
            yield self.cluster.servers("NOWHERE"), address

    def advertises_name(self) -> tuple[Address, int]:
        return self._own("NAME"), self._advertised["NAME"]

    def _own(self, listener: str) -> Address:
        return "127.0.0.1", self.cluster.nodes[0].ports[listener]

    def count(self) -> int:
        return sum(self.cluster.end_offsets(self.topic).values())

    def log(self) -> list[Record]:
        return self.cluster.read(self.topic)


def log_of(broker: Broker | MemoryBroker, topic: str) -> list[Record]:
    """What is in a topic of an embedded broker, as `Place.log` tells it."""
    return [
        Record(one.partition, one.offset, one.key, one.value, [], one.timestamp_ms)
        for one in broker.records(topic)
    ]


def advertised_ports() -> dict[str, int]:
    """The ports that a node for `Real` tells of, by the names of its listeners."""
    (ports,) = free_ports(["LINK", "NOWHERE", "NAME"], 1)
    return ports


def listeners(ports: dict[str, int]) -> dict[str, Listener]:
    """The listeners of a node for `Real`."""
    hosts = {"NAME": NAME}
    return {
        name: Listener(advertised=f"{hosts.get(name, '127.0.0.1')}:{port}") for name, port in ports.items()
    }


@contextlib.contextmanager
def _nobody_listens(port: int) -> Generator[Address, None, None]:
    """An address that is taken, and where connections are refused."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port))
        yield taken.getsockname()
