from collections.abc import Iterable
from typing import Any

def encode_records(entries: Iterable[tuple[Any, ...]], header: int, /) -> tuple[bytearray, int]: ...
