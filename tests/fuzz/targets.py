"""What is fuzzed: how an input is drawn, and what must hold of it."""

from __future__ import annotations

from collections.abc import Callable, Sized
from dataclasses import dataclass
from random import Random
from typing import Any, Protocol


class Check(Protocol):
    def __call__(self, fuzzed: Any, /) -> str:
        """Put an input to what is tested. Raises whatever shows that a promise is broken.

        Returns what became of it, in a word, for the statistics.
        """


@dataclass(frozen=True)
class Target:
    """A part of the client and what is fed to it.

    Attributes:
        share (int): how many of a thousand inputs are for it.
        draw: makes an input; everything random about it comes from the argument.
        check: see `Check`; may be an async function, which is then called in a loop of trio.
        size: of an input, in bytes.
        pace (str): ``"decoder"`` for some 20 µs an input, ``"loop"`` for some milliseconds.
    """

    name: str
    share: int
    draw: Callable[[Random], Any]
    check: Callable[[Any], Any]
    size: Callable[[Any], int]
    pace: str = "decoder"


def length(fuzzed: tuple[Any, Sized]) -> int:
    """The size of (where it goes, bytes)."""
    return len(fuzzed[1])


def check_text(text: str) -> None:
    """One line that a terminal may be given, and not endless."""
    assert text, "no text"
    assert len(text) < 2000, f"{len(text)} characters"
    assert text.isprintable(), f"not printable: {text[:300]!r}"
