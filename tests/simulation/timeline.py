"""Who did what when in a run, for people to read."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from tests.simulation.cluster import Place
from tests.simulation.network import Frame
from trio_kprod._core._error_codes import PartitionResponse
from trio_kprod._core._metadata import TopicMetadata
from trio_kprod._core._reports import Settled
from trio_kprod._messages import KEY, PARTITION, RUN, TOPIC, VALUE, Entry


class Timeline:
    """Something to pass as `say` to `replay`."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def __call__(self, now: float, text: str, *args: object) -> None:
        self.lines.append(f"{now:9.3f}  {text % tuple(map(_brief, args))}")

    def __str__(self) -> str:
        return "\n".join(self.lines)


def _brief(thing: object) -> object:
    if isinstance(thing, Settled):
        return _settled(thing)
    if isinstance(thing, TopicMetadata):
        return _topic(thing)
    if isinstance(thing, Place):
        return f"{thing.topic}-{thing.partition}"
    if isinstance(thing, PartitionResponse):
        return _answer(thing)
    if isinstance(thing, Mapping):
        return ", ".join(f"{_brief(key)} {_brief(value)}" for key, value in thing.items()) or "nothing"
    if isinstance(thing, (list, set)):
        return ", ".join(str(_brief(each)) for each in thing) or "nothing"
    if type(thing) is tuple and len(thing) > RUN:
        return _message(cast("Entry", thing))
    return str(thing) if isinstance(thing, Frame) else thing


def _values(messages: object) -> str:
    assert isinstance(messages, (list, tuple))
    return " ".join((message[VALUE] or b"").decode() for message in messages)


def _settled(settled: Settled) -> str:
    where = f"{settled.topic}-{settled.partition}: {_values(tuple(settled.entries))}"
    if settled.error is None:
        return f"{where} delivered at {settled.base_offset}"
    fate = "maybe written" if settled.maybe_written else "not written"
    return f"{where} {fate}: {settled.error!r}"


def _message(message: Entry) -> str:
    target = message[PARTITION] if message[PARTITION] is not None else (message[KEY] or b"*").decode()
    return f"{(message[VALUE] or b'').decode()} to {message[TOPIC]}/{target}"


def _topic(topic: TopicMetadata) -> str:
    leaders = " ".join(f"{one.leader}(epoch {one.leader_epoch})" for one in topic.partitions)
    error = f"error {topic.code} " if topic.code else ""
    return f"{topic.name} ({topic.id.int}): {error}{leaders}"


def _answer(answer: PartitionResponse) -> str:
    text = f"error {answer.code}" if answer.code else "appended"
    if answer.base_offset >= 0:
        text += f" at {answer.base_offset}"
    if answer.leader >= 0:
        text += f", node {answer.leader} leads"
    return text
