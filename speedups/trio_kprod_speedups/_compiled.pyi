from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

def encode_records(entries: Iterable[tuple[Any, ...]], header: int, /) -> tuple[bytearray, int]: ...
def murmur2(key: bytes, /) -> int: ...

class RoomCounters:
    bound: int
    max_bytes: int
    tasks_waiting: int
    unsettled_bytes: int
    wake_at: float

class TopicCounters:
    limited: bool
    max_message_size: int
    name: str
    unsettled: int
    unsettled_bytes: int

class IntakeCounters:
    millisecond: int
    millisecond_ends: float

class LedgerCounters:
    run: int

class Sender:
    def __init__(
        self,
        *,
        room: RoomCounters,
        intake: IntakeCounters,
        ledger: LedgerCounters,
        topics: dict[str, Any],
        queue: deque[Any],
        clock: Callable[[], float],
        read_wall_clock: Callable[[float], int],
        token: object,
        current_token: Callable[[], object],
        send_nowait: Callable[..., Any],
        offer: Callable[..., Any],
        accept_item: Callable[..., Any],
    ) -> None: ...
    def send_nowait(
        self,
        topic: str,
        value: Any = None,
        *,
        key: Any = None,
        headers: Any = None,
        partition: int | None = None,
        timestamp_ms: int | None = None,
    ) -> None: ...
    def offer(
        self,
        topic: str,
        value: Any,
        key: Any,
        headers: Any,
        partition: int | None,
        timestamp_ms: int | None,
        ticket: int | None = None,
        *,
        wake: bool = True,
    ) -> tuple[Any, Any, bool]: ...
    def accept_item(self, topic: str, item: Any, /) -> Any: ...
