"""To which partition a message goes: as Java's producer decides, or a partitioner that the user gave.

Messages with a key go where Java's producer puts them (murmur2 of the key); those with neither key nor
partition are not placed here: they get their place when a batch is formed (KIP-480, KIP-794).
"""

from __future__ import annotations

import functools
import struct
from collections.abc import Callable, Sequence
from typing import Any

from .._messages import KEY, TOPIC, VALUE, Entry
from .._speedups import compiled

#: (message, number of partitions, partitions with a leader) -> partition
Partitioner = Callable[[Entry, int, Sequence[int]], object]

_WORD = struct.Struct("<I")
_WORD_BITS = 0xFFFFFFFF
_SEED = 0x9747B28C
_MIXER = 0x5BD1E995


def murmur2(key: bytes) -> int:
    """Java's ``Utils.murmur2``, but unsigned. It goes by words, in half the time that kafka-python's takes,
    which goes by bytes.
    """
    mixer, bits = _MIXER, _WORD_BITS
    digest = _SEED ^ len(key)
    end = len(key) & ~3
    for (word,) in _WORD.iter_unpack(key[:end]):
        word = word * mixer & bits
        digest = (digest * mixer ^ (word ^ word >> 24) * mixer) & bits
    if end < len(key):
        digest = (digest ^ int.from_bytes(key[end:], "little")) * mixer & bits
    digest = (digest ^ digest >> 13) * mixer & bits
    return digest ^ digest >> 15


# In Python hashing takes 0.05 µs a byte, and keys repeat. Long ones do not enter, so that memory is bounded.
_LONGEST_CACHED_KEY = 64
_cached_murmur2 = functools.lru_cache(maxsize=16_384)(murmur2)


def hash_in_python(key: bytes) -> int:
    digest = _cached_murmur2(key) if len(key) <= _LONGEST_CACHED_KEY else murmur2(key)
    return digest & 0x7FFFFFFF


def hash_compiled(key: bytes) -> int:
    """The same in C, which is as quick as a look at the cache."""
    digest: int = compiled.murmur2(key)
    return digest & 0x7FFFFFFF


#: Java's ``Utils.toPositive(Utils.murmur2(key))``.
hash_key = hash_in_python if compiled is None else hash_compiled


def adapt(partitioner: Any) -> Partitioner | None:
    """Make a `Partitioner` of what `open_producer` was given.

    None stays None. kafka-python's ``Partitioner`` objects get the bytes of key and value (a serializer has
    run by then). Plain callables get ``(key, all_partitions, available_partitions)``.
    """
    if partitioner is None:
        return None
    if hasattr(partitioner, "partition"):
        return functools.partial(_ask_object, partitioner)
    return functools.partial(_ask_callable, partitioner)


def _ask_object(partitioner: Any, message: Entry, count: int, available: Sequence[int]) -> int:
    cluster = _OneTopic(message[TOPIC], count, available)
    chosen: int = partitioner.partition(
        message[TOPIC], message[KEY], message[KEY], message[VALUE], message[VALUE], cluster
    )
    return chosen


def _ask_callable(partitioner: Any, message: Entry, count: int, available: Sequence[int]) -> int:
    chosen: int = partitioner(message[KEY], list(range(count)), list(available))
    return chosen


class _OneTopic:
    """The part of kafka-python's ``ClusterMetadata`` that partitioners use."""

    def __init__(self, topic: str, count: int, available: Sequence[int]) -> None:
        self._topic = topic
        self._all = set(range(count))
        self._available = set(available)

    def topics(self) -> set[str]:
        return {self._topic}

    def partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(self._all) if topic == self._topic else None

    def available_partitions_for_topic(self, topic: str) -> set[int] | None:
        return set(self._available) if topic == self._topic else None
