"""What `docs/speed.md` says of speed, from the results kept; ``python -m benchmarks --docs`` prints it."""

from __future__ import annotations

from collections.abc import Sequence

from benchmarks.cost import FULL_SPEED
from benchmarks.harness.figures import ack_ms, cpu_us, late_ms, middle, rate, ratio
from benchmarks.harness.job import Round
from benchmarks.latency import paced_at
from benchmarks.memory import bytes_each, full_cases
from benchmarks.peers import PYTHON_LOOPS, REFERENCE
from benchmarks.targets import Every
from benchmarks.throughput import BASE

_OURS, _IDIOM = "send_nowait", "`send_nowait`"
_PACE = 1_000


def lines(every: Every) -> list[str]:
    """Four lines of Markdown; raises `KeyError` where something was not measured."""
    return [f"- {line}" for line in (_rates(every), _acks(every), _lateness(every), _costs(every))]


def _rates(every: Every) -> str:
    taken = every["throughput"].found[BASE]
    others = [(peer, f"`{peer}`") for peer in PYTHON_LOOPS] + [(REFERENCE, "librdkafka's `Producer` in C")]
    against = ", ".join(f"{ratio(taken[_OURS], taken[peer]):.2f} x {name}" for peer, name in others)
    return f"**Throughput**, 100 bytes, {_IDIOM}: {middle(taken[_OURS], rate):,.0f} messages/s; {against}."


def _acks(every: Every) -> str:
    taken = every["latency"].found[paced_at(_PACE)]
    peers = {_IDIOM: _OURS, **{f"`{peer}`": peer for peer in (*PYTHON_LOOPS, REFERENCE)}}
    found = "; ".join(f"{name} {_p50_and_p99(taken[peer])}" for name, peer in peers.items())
    return f"**Acknowledged** at {_PACE:,} messages/s after (p50 / p99, ms): {found}."


def _p50_and_p99(rounds: Sequence[Round]) -> str:
    return " / ".join(f"{middle(rounds, ack_ms(percentile)):.2f}" for percentile in ("p50", "p99"))


def _lateness(every: Every) -> str:
    taken = every["responsiveness"].found[FULL_SPEED]
    peers = {_IDIOM: _OURS, **{f"`{peer}`": peer for peer in PYTHON_LOOPS if peer in taken}}
    found = "; ".join(f"{name} {middle(taken[peer], late_ms('p99')):.1f}" for name, peer in peers.items())
    return f"**Timer of 5 ms** in the same loop, late at full speed by (p99, ms): {found}."


def _costs(every: Every) -> str:
    taken = every["cost"].found[FULL_SPEED]
    peers = {_IDIOM: _OURS, **{f"`{peer}`": peer for peer in PYTHON_LOOPS}}
    found = "; ".join(f"{name} {middle(taken[peer], cpu_us):.1f}" for name, peer in peers.items())
    full = max(middle(every["memory"].found[case.name][_OURS], bytes_each) for case in full_cases())
    memory = f"When queue and buffer are full, each message of 1,000 bytes takes {full:,.0f} bytes of memory."
    return f"**Processor** time a message, all threads (µs): {found}. {memory}"
