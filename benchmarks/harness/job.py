"""What one producer has to do in one round, and what came of it; both travel between processes as JSON."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

Figures = dict[str, float]


@dataclass(frozen=True)
class Job:
    """One round of one producer.

    Attributes:
        peer: the producer's name.
        task: ``flood`` (as fast as it goes), ``paced`` (at `rate` messages a second), ``waited`` (each
            awaited before the next, in `tasks` tasks), or one that only we have.
        keyed: each message has a key, one of some thousands that come again.
        unique_keys: the keys are UUIDs, as text, none of which comes again.
        headers: each message has two, one of them with a value of its own.
        json: values are JSON documents of about 300 bytes, instead of digits.
        timer: whether a timer runs in the producer's loop, whose lateness is told.
        timeline: whether to tell what was sent and acknowledged when.
        settings: the producer's own.
    """

    peer: str
    task: str
    servers: str
    topics: Sequence[str]
    messages: int
    partitions: int = 4
    size: int = 100
    keyed: bool = False
    unique_keys: bool = False
    headers: bool = False
    json: bool = False
    compression: str | None = None
    rate: float = 0.0
    tasks: int = 1
    timer: bool = False
    timeline: bool = False
    settings: dict[str, Any] = field(default_factory=dict)

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Job:
        return cls(**json.loads(text))


@dataclass(frozen=True)
class Round:
    """What one round took.

    Attributes:
        cpu_seconds: of all threads of the process.
        peak_mib: the most memory it ever had.
        failed: messages that were told as not delivered.
        acks: seconds until an acknowledgement, as percentiles.
        lateness: seconds by which the timer was late, as percentiles.
        timeline: time, messages sent and messages settled so far.
        extra: what only this task measures.
    """

    messages: int
    seconds: float
    cpu_seconds: float
    peak_mib: float
    failed: int = 0
    acks: Figures | None = None
    lateness: Figures | None = None
    timeline: list[tuple[float, int, int]] | None = None
    extra: Figures = field(default_factory=dict)

    @property
    def rate(self) -> float:
        """Messages a second."""
        return self.messages / self.seconds

    @property
    def cpu_us(self) -> float:
        """Microseconds of processor time a message, all threads together."""
        return self.cpu_seconds / self.messages * 1e6

    def figures(self) -> Figures:
        """Everything that was measured, by names that say the unit; a task without messages has no rates."""
        rates = {"messages/s": self.rate, "CPU us": self.cpu_us} if self.messages else {}
        acks = {f"ack {name} ms": 1e3 * seconds for name, seconds in (self.acks or {}).items()}
        late = {f"late {name} ms": 1e3 * seconds for name, seconds in (self.lateness or {}).items()}
        return {**rates, "peak MiB": self.peak_mib, "failed": self.failed, **acks, **late, **self.extra}

    def dumps(self) -> str:
        return json.dumps(asdict(self))

    @classmethod
    def loads(cls, text: str) -> Round:
        return cls(**json.loads(text))
