"""Responses of every version that we speak, which make sense or nearly: by kafka-python's own tables."""

from __future__ import annotations

import uuid
from random import Random
from typing import Any

#: The correlation id of each.
NUMBER = 77

TOPICS = ("t", "another.topic")
TOPIC_IDS = (uuid.UUID(int=1 << 100 | 1), uuid.UUID(int=2 << 100 | 2))

_TEXT = ("", "x", "broker", "\u2603" * 5, "line\nbreak", "\x1b[31mred", "\u202eright to left", "long " * 200)

_BITS = {"int8": 8, "int16": 16, "uint16": 15, "int32": 32, "int64": 64}

#: What fields hold as a rule, so that many responses make sense. Now and then they hold something else.
_USUAL: dict[str, tuple[Any, ...]] = {
    "error_code": (0, 0, 0, 0, 0, 0, 3, 5, 6, 7, 10, 19, 20, 29, 35, 45, 46, 47, 58, 87, -1),
    "throttle_time_ms": (0, 0, 0, 1, 5000),
    "name": TOPICS,
    "topic_id": TOPIC_IDS,
    "index": (0, 1, 2),
    "partition_index": (0, 1, 2),
    "base_offset": (-1, 0, 5, 10**12),
    "log_append_time_ms": (-1, 1_700_000_000_000),
    "leader_id": (-1, 1, 2),
    "leader_epoch": (-1, 0, 1, 7),
    "node_id": (1, 2),
    "host": ("node1", "node2"),
    "port": (9092,),
    "api_key": (0, 3, 17, 18, 22, 36),
    "min_version": (0, 0, 1, 3),
    "max_version": (0, 4, 9, 13),
    "producer_id": (0, 7, 2**40),
    "error_message": (None, "because"),
}


def frame_of(response_class: Any, version: int, rng: Random) -> bytes:
    """A response without its length."""
    message = _filled(response_class, response_class._struct, version, rng)
    message.with_header(correlation_id=NUMBER)
    return bytes(message.encode(header=True))


def _filled(data_class: Any, struct: Any, version: int, rng: Random) -> Any:
    fields = {
        field.name: _value(field, version, rng)
        for field in struct.fields.values()
        if field.for_version_q(version) and not (field.tagged_field_q(version) and rng.random() < 0.7)
    }
    return data_class(version=version, **fields)


def _value(field: Any, version: int, rng: Random) -> Any:
    if field.nullable_for_version_q(version) and rng.random() < 0.1:
        return None
    if field.is_struct_array():
        items = [_filled(field.data_class, field, version, rng) for _ in range(rng.choice((0, 1, 1, 2, 3)))]
        for number, item in enumerate(items):
            if rng.random() < 0.9 and hasattr(item, "partition_index"):
                item.partition_index = number
        return items
    if field.is_struct():
        return _filled(field.data_class, field, version, rng)
    if field.is_array():
        return [_simple(field.array_of, rng) for _ in range(rng.choice((0, 1, 3)))]
    return _simple(field, rng)


def _simple(field: Any, rng: Random) -> Any:
    usual = _USUAL.get(field.name)
    if usual is not None and rng.random() < 0.95:
        return rng.choice(usual)
    kind = field.type_str.removeprefix("[]")
    if kind in _BITS:
        limit = 2 ** (_BITS[kind] - 1)
        return rng.choice((0, 1, -1, limit - 1, -limit, rng.randrange(-limit, limit)))
    if kind == "bool":
        return rng.random() < 0.5
    if kind == "uuid":
        return rng.choice((*TOPIC_IDS, uuid.UUID(int=0), uuid.UUID(int=99)))
    if kind == "bitfield":
        return {1, 2}
    if kind in ("bytes", "records"):
        return rng.randbytes(rng.choice((0, 5, 50)))
    return rng.choice(_TEXT)
