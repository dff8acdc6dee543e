"""What befalls a broker."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from random import Random
from typing import Literal

import trio

from tests.chaos.history import History
from trio_kprod.testing import Broker, MemoryBroker, Record

TOPICS = ("a", "b", "small", "compacted")

#: Answers after which the same bytes are sent again, whether they were appended or not.
RETRIABLE = (3, 5, 6, 7, 8, 9, 13, 14, 19, 20, 56, 89, 100, -1, 2, 999)
#: Answers that are the end of a batch or of some of its messages.
FINAL = (10, 17, 29, 32, 44, 76, 87)
#: Answers that concern the producer id.
SEQUENCES = (45, 47, 59, 90)
METADATA = (3, 5, 6, 9, 14, 29, -1)
APIS = ("Produce", "Produce", "Metadata", "InitProducerId", "ApiVersions", None)


class Weather:
    """Faults, one after the other; `pace` is the length of what would be a second."""

    def __init__(
        self, random: Random, broker: Broker | MemoryBroker, history: History, pace: float, *, topic_ids: bool
    ) -> None:
        self.random = random
        self.broker = broker
        self.history = history
        self.pace = pace
        self.former: dict[str, list[list[Record]]] = defaultdict(list)  # logs of deleted topics
        self.faults: Sequence[Callable[[], None]] = (
            *(self.answer_retriable, self.answer_retriable, self.answer_final, self.answer_sequence),
            *(self.answer_metadata, self.answer_producer_id, self.drop, self.drop, self.disconnect),
            *(self.delay, self.freeze, self.thaw, self.thaw, self.clear, self.go_down, self.come_up),
            *(self.come_up, self.create_topic, self.create_topic, self.add_partitions, self.alter_topic),
        )
        if topic_ids:  # without them nobody can tell a topic from the one of that name before
            self.faults = (*self.faults, self.delete_topic, self.delete_topic)

    def logs(self) -> dict[str, list[list[Record]]]:
        return {topic: [*self.former[topic], self.broker.records(topic)] for topic in TOPICS}

    async def rage(self) -> None:
        while True:
            await trio.sleep(self.pace * self.random.choice([0, 0, 0.01, 0.3, 2]))
            self.strike()

    def strike(self) -> None:
        fault = self.random.choice(self.faults)
        self.history.say("weather: %s", fault.__name__)
        fault()

    def calm_down(self) -> None:
        self.history.say("weather: calm")
        self.broker.clear_faults()
        self.come_up()
        self.create_topics()

    async def blow_over(self) -> None:
        """Let the broker handle what it holds, of clients that are gone, too."""
        self.broker.clear_faults()
        while self.broker.connections:  # noqa: ASYNC110  # no event for it, and the loop may be another
            await trio.sleep(self.pace)

    # -- answers

    def answer_retriable(self) -> None:
        code, topic, after = self.random.choice(RETRIABLE), self.some_topic(), self.random.random() < 0.5
        times = self.random.choice([1, 3])
        self.history.say(
            "weather: Produce of %s answered %d, after append: %s, %dx", topic, code, after, times
        )
        self.broker.answer("Produce", code, topic=topic, after_append=after, times=times)

    def answer_final(self) -> None:
        code, topic = self.random.choice(FINAL), self.some_topic()
        errors = [(0, "no")] if code in (32, 87) and self.random.random() < 0.8 else []
        self.history.say("weather: Produce of %s answered %d", topic, code)
        self.broker.answer("Produce", code, topic=topic, record_errors=errors)

    def answer_sequence(self) -> None:
        code, topic = self.random.choice(SEQUENCES), self.some_topic()
        self.history.say("weather: Produce of %s answered %d", topic, code)
        self.broker.answer("Produce", code, topic=topic)

    def answer_metadata(self) -> None:
        code, topic, partition = (
            self.random.choice(METADATA),
            self.some_topic(),
            self.random.choice([None, 0]),
        )
        self.history.say("weather: Metadata of %s-%s answered %d", topic, partition, code)
        self.broker.answer("Metadata", code, topic=topic, partition=partition)

    def answer_producer_id(self) -> None:
        self.broker.answer("InitProducerId", self.random.choice([14, 51, -1]))

    # -- connections

    def drop(self) -> None:
        moments: list[Literal["accept", "request", "append"]] = ["accept", "request", "append"]
        after, api = self.random.choice(moments), self.some_api()
        self.history.say("weather: drop after %s of %s", after, api)
        self.broker.drop_connections(after, api, times=self.random.choice([1, 1, 4]))

    def disconnect(self) -> None:
        self.broker.disconnect_all()

    def delay(self) -> None:
        seconds, api = self.random.choice([0.001, 0.5, 5, 15]), self.some_api()
        self.history.say("weather: delay %s by %g s", api, seconds)
        self.broker.delay(api, self.pace * seconds, after_append=self.random.random() < 0.5)

    def freeze(self) -> None:
        api, after, times = self.some_api(), self.random.random() < 0.5, self.random.choice([1, None])
        self.history.say("weather: freeze %s, after append: %s, times: %s", api, after, times)
        self.broker.silence(api, times=times, after_append=after)

    def thaw(self) -> None:
        self.broker.resume()

    def clear(self) -> None:
        self.broker.clear_faults()

    def go_down(self) -> None:
        self.broker.stop_listening()

    def come_up(self) -> None:
        self.broker.start_listening()

    # -- topics

    def delete_topic(self) -> None:
        name = self.random.choice(TOPICS)
        if name in self.broker.topics:
            self.history.say("weather: delete %s", name)
            self.former[name].append(self.broker.records(name))
            self.broker.delete_topic(name)

    def create_topic(self) -> None:
        self._create(self.random.choice(TOPICS))

    def create_topics(self) -> None:
        for name in TOPICS:
            self._create(name)

    def _create(self, name: str) -> None:
        if name not in self.broker.topics:
            self.history.say("weather: create %s", name)
            self.broker.create_topic(
                name,
                self.random.choice([1, 2, 3]),
                compacted=name == "compacted",
                max_message_bytes=400 if name == "small" else None,
                log_append_time=name == "b",
            )

    def add_partitions(self) -> None:
        for name, count in self.broker.topics.items():
            if count < 6 and self.random.random() < 0.3:
                self.broker.add_partitions(name, count + 1)

    def alter_topic(self) -> None:
        if "small" in self.broker.topics:
            self.broker.alter_topic("small", max_message_bytes=self.random.choice([100, 200, 400, 1000]))

    # -- choices

    def some_topic(self) -> str | None:
        return self.random.choice((*TOPICS, None))

    def some_api(self) -> str | None:
        return self.random.choice(APIS)
