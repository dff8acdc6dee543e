"""What a test can do with a broker, whether it listens on a port or lives in the test's own loop."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

from ._checks import check_api, check_integer, check_port, check_text
from ._cluster import Address, Cluster, Options, TopicSettings, is_legal_name
from ._faults import Answer, Delay, Drop, Fault, Rule, Silence
from ._log import Batch, Record
from ._serve import Connections
from ._watching import Observable


class BrokerControls(Observable):
    """Topics, what arrived, scripted faults. Every method may be called from any thread, and none blocks
    for longer than a request takes, unless its description says so.
    """

    def __init__(self, options: Options, address: Address, topics: Mapping[str, int] | None = None) -> None:
        check_integer("partitions", options.partitions, 1)
        check_integer("max_message_bytes", options.max_message_bytes, 1)
        check_integer("max_request_bytes", options.max_request_bytes, 1)
        for api, version in (options.max_versions or {}).items():
            check_api(api)
            check_integer(f"the highest version of {api}", version, 0)
        self._cluster = self._watched = Cluster(options, address)
        self._connections = Connections()
        for name, partitions in (topics or {}).items():
            self.create_topic(name, partitions)

    # -- addresses

    @property
    def bootstrap_servers(self) -> str:
        """``"host:port"``: what to give to a client, and what metadata responses name."""
        return str(self._cluster.advertised)

    def advertise(self, host: str, port: int) -> None:
        """Tell clients another address from now on: that of a proxy in front of the broker."""
        check_text("host", host)
        check_port("port", port)
        with self._cluster.lock:
            self._cluster.advertised = Address(host, port)

    # -- topics

    def create_topic(
        self,
        name: str,
        partitions: int = 1,
        *,
        log_append_time: bool = False,
        compacted: bool = False,
        max_message_bytes: int | None = None,
    ) -> None:
        """Create a topic.

        Args:
            name: letters, digits, ``.``, ``_`` and ``-``; at most 249.
            partitions: how many.
            log_append_time: records get the time at which they are written (Kafka's
                ``message.timestamp.type=LogAppendTime``).
            compacted: records without a key are refused with INVALID_RECORD (87), each of them listed.
            max_message_bytes: the largest batch it takes, in bytes; None for the broker's limit.

        Raises:
            ValueError: the name is not legal or taken, or there is less than one partition.
        """
        check_text("a topic's name", name)
        if not is_legal_name(name):
            raise ValueError(f"Kafka allows no topic of this name: {name!r}")
        check_integer("partitions", partitions, 1)
        with self._cluster.lock:
            if name in self._cluster.topics:
                raise ValueError(f"topic {name!r} exists already")
            self._cluster.create_topic(
                name, partitions, TopicSettings(log_append_time, compacted, max_message_bytes)
            )

    def alter_topic(self, name: str, *, max_message_bytes: int | None) -> None:
        """Change the largest batch a topic takes. Raises KeyError if the topic does not exist."""
        self._cluster.alter_topic(name, max_message_bytes=max_message_bytes)

    def delete_topic(self, name: str) -> None:
        """Delete a topic with all it holds; created again, it has another id. Raises KeyError."""
        self._cluster.delete_topic(name)

    def add_partitions(self, name: str, total: int) -> None:
        """Let a topic have `total` partitions. Raises KeyError, or ValueError if it has more already."""
        self._cluster.add_partitions(name, total)

    @property
    def topics(self) -> dict[str, int]:
        """How many partitions each topic has."""
        with self._cluster.lock:
            return {name: len(topic.partitions) for name, topic in self._cluster.topics.items()}

    # -- what arrived

    def records(self, topic: str) -> list[Record]:
        """What is in a topic, by partition and offset; empty if the topic does not exist (yet)."""
        return self._cluster.records(topic)

    def batches(self, topic: str) -> list[Batch]:
        """The record batches of a topic, by partition and offset; empty if the topic does not exist (yet)."""
        return self._cluster.batches(topic)

    @property
    def requests(self) -> Counter[str]:
        """How many requests were read so far, by their name in Kafka's protocol guide."""
        with self._cluster.lock:
            return Counter(self._cluster.requests)

    @property
    def connections(self) -> int:
        """How many connections are open."""
        return len(self._connections)

    @property
    def connections_accepted(self) -> int:
        """How many connections were accepted so far."""
        return self._cluster.accepted

    def wait_records(self, topic: str, count: int = 1, timeout: float = 10.0) -> list[Record]:
        """Block until a topic holds at least `count` records, and return them.

        Do not call it in the producer's loop: there, await `records_arrived`.

        Raises:
            TimeoutError: fewer arrived within `timeout` seconds (of real time).
        """
        self._wait(lambda: self._cluster.record_count(topic), count, timeout, f"records in topic {topic!r}")
        return self.records(topic)

    async def records_arrived(self, topic: str, count: int = 1) -> list[Record]:
        """Wait until a topic holds at least `count` records, and return them; in any trio loop."""
        await self._arrived(lambda: self._cluster.record_count(topic), count)
        return self.records(topic)

    def wait_requests(self, api: str, count: int = 1, timeout: float = 10.0) -> None:
        """Block until `count` requests of a kind were read since the broker began; see `requests`.

        Raises:
            ValueError: the broker serves no request of this name.
            TimeoutError: fewer came within `timeout` seconds (of real time).
        """
        check_api(api)
        self._wait(lambda: self._cluster.requests[api], count, timeout, f"{api} requests")

    async def requests_arrived(self, api: str, count: int = 1) -> None:
        """Wait until `count` requests of a kind were read since the broker began; in any trio loop.

        Raises:
            ValueError: the broker serves no request of this name.
        """
        check_api(api)
        await self._arrived(lambda: self._cluster.requests[api], count)

    def _wait(self, current: Callable[[], int], count: int, timeout: float, what: str) -> None:
        if not self._cluster.wait_until(lambda: current() >= count, timeout):
            raise TimeoutError(f"{current()} of {count} {what} after {timeout} seconds")

    async def _arrived(self, current: Callable[[], int], count: int) -> None:
        await self._cluster.until(lambda: current() >= count)

    # -- faults

    def script(self, fault: Fault) -> Rule:
        """Add a fault: an `Answer`, `Delay`, `Silence` or `Drop`, as the methods below make them."""
        return self._cluster.script(fault)

    def answer(
        self,
        api: str,
        error: int | str,
        *,
        topic: str | None = None,
        partition: int | None = None,
        times: int | None = 1,
        skip: int = 0,
        after_append: bool = False,
        base_offset: int | None = None,
        record_errors: Sequence[tuple[int, str | None]] = (),
        message: str | None = None,
        leader: tuple[int, int] | None = None,
    ) -> Rule:
        """Answer requests with an error, by its code or its name; see `Answer`."""
        return self.script(
            Answer(
                api,
                error=error,
                topic=topic,
                partition=partition,
                times=times,
                skip=skip,
                after_append=after_append,
                base_offset=base_offset,
                record_errors=record_errors,
                message=message,
                leader=leader,
            )
        )

    def delay(
        self,
        api: str | None,
        seconds: float,
        *,
        topic: str | None = None,
        times: int | None = 1,
        skip: int = 0,
        after_append: bool = False,
    ) -> Rule:
        """Handle requests `seconds` later; see `Delay`."""
        return self.script(
            Delay(api, seconds=seconds, topic=topic, times=times, skip=skip, after_append=after_append)
        )

    def silence(
        self,
        api: str | None = None,
        *,
        topic: str | None = None,
        times: int | None = None,
        skip: int = 0,
        after_append: bool = False,
    ) -> Rule:
        """Read requests and leave them, until `resume` or the rule's own `remove`; see `Silence`."""
        return self.script(Silence(api, topic=topic, times=times, skip=skip, after_append=after_append))

    def resume(self) -> None:
        """End every silence: what was held is handled and answered now."""
        with self._cluster.lock:
            silences = self._cluster.rules.silences()
        for rule in silences:
            rule.remove()

    def drop_connections(
        self,
        after: Literal["accept", "request", "append"] = "request",
        api: str | None = None,
        *,
        topic: str | None = None,
        times: int | None = 1,
        skip: int = 0,
    ) -> Rule:
        """Close connections as soon as they are accepted, or with a request read, or handled; see `Drop`."""
        return self.script(Drop(api, after=after, topic=topic, times=times, skip=skip))

    def clear_faults(self) -> None:
        """Forget every fault; what a silence held goes on."""
        with self._cluster.lock:
            rules = self._cluster.rules.clear()
        for rule in rules:
            rule.remove()

    def disconnect_all(self) -> None:
        """Close every connection, soon. Clients may connect again at once."""
        self._connections.cut_all()
