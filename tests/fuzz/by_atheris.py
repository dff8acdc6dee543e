"""Inputs that are guided by what they reach in the code. Needs ``pip install atheris``.

``python -m tests.fuzz --atheris NAME SECONDS`` runs this as a program of its own, because atheris has to see
each module before it is imported.
"""

from __future__ import annotations

import sys
from random import Random
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from typing_extensions import Self

    from tests.fuzz.targets import Target

#: What is to be reached.
_INSTRUMENTED = ["trio_kprod", "kafka.protocol"]


def explore(name: str, seconds: str) -> None:
    """Never returns. A broken promise is a crash: libFuzzer prints it and keeps the input in a file."""
    import atheris  # optional: only this function needs it

    with atheris.instrument_imports(include=_INSTRUMENTED):
        from tests.fuzz.all_targets import target_named
        from tests.fuzz.run import is_async

    target = target_named(name)
    if is_async(target):
        sys.exit(f"{name} runs in a loop of trio: use --inputs")
    fuzz = _decoder(target) if name in _DECODED else _drawn(target)
    atheris.Setup([sys.argv[0], f"-max_total_time={seconds}", "-max_len=4096", "-timeout=20"], fuzz)
    atheris.Fuzz()


#: Here the bytes are the frame, so that what guides can guide.
_DECODED = {"versions", "metadata", "producer_id", "produce", "sasl_handshake", "sasl_authenticate"}


def _decoder(target: Target) -> Any:
    from tests.fuzz.decoders import kinds

    def fuzz(data: bytes) -> None:
        if data:
            which = data[0] % len(kinds(target.name))
            target.check((which, kinds(target.name)[which].samples[0][:4] + data[1:]))

    return fuzz


def _drawn(target: Target) -> Any:
    """Here they are where all that is random comes from."""

    def fuzz(data: bytes) -> None:
        target.check(target.draw(_FromBytes(data)))

    return fuzz


class _FromBytes(Random):
    """Draws from bytes; nothing but zeros when they are used up."""

    def __new__(cls, data: bytes) -> Self:
        return super().__new__(cls)

    def __init__(self, data: bytes) -> None:
        super().__init__(0)
        self._data = data
        self._at = 0

    def getrandbits(self, count: int, /) -> int:
        size = (count + 7) // 8
        taken = self._data[self._at : self._at + size].ljust(size, b"\0")
        self._at += size
        return int.from_bytes(taken, "big") >> (8 * size - count)

    def random(self) -> float:
        return self.getrandbits(53) / 2**53

    def _randbelow(self, count: int) -> int:
        """Instead of drawing again until it fits, which zeros would never."""
        return self.getrandbits(count.bit_length() + 8) % count


if __name__ == "__main__":
    explore(*sys.argv[1:])
