"""What users and their programs give us as text: lines of JSON, settings of other clients."""

from __future__ import annotations

import json
from functools import cache
from random import Random
from typing import Any

from tests import other_clients
from tests.fuzz.mutations import mutated
from tests.fuzz.targets import Target
from trio_kprod import settings_from
from trio_kprod._cli._lines import Format
from trio_kprod._settings._config import NAMED

_LINES: tuple[Any, ...] = (
    *({"value": "x"}, {"value": None, "key": "k", "headers": {"h": "v"}, "partition": 0, "timestamp_ms": 1}),
    *({"value": {"a": [1, 2.5, None, True]}, "headers": [["h", "v"], ["h", None]]}, {"value": "eA=="}, [], 5),
)

_FORMATS = (Format(), Format(as_json=True), Format(as_json=True, base64=True), Format(key_separator=":"))

_VALUES: tuple[Any, ...] = (
    *(
        None,
        "",
        "0",
        "-1",
        "1e400",
        "nan",
        "inf",
        "true",
        "yes",
        "all",
        "5000",
        "9" * 5000,
        "a,b;c",
        "\ud800",
    ),
    *("localhost:9092", "[::1]:9092", "h:", ":9", "gzip", "SASL_SSL", "a = b required x='", "\x00", "{{}}"),
    *(0, -1, 2**70, 1.5, float("nan"), True, [], {}, b"x", object(), ["a:1", 5], lambda: None),
)


def _draw_line(rng: Random) -> tuple[int, bytes]:
    line = json.dumps(rng.choice(_LINES)).encode()
    if rng.random() < 0.02:
        line = b'{"value":' + rng.choice((b"[", b'{"a":')) * rng.choice((500, 100_000))
    return rng.randrange(len(_FORMATS)), mutated(line, rng)


def _check_line(fuzzed: tuple[int, bytes]) -> str:
    which, line = fuzzed
    try:
        _FORMATS[which].parse(line)
    except ValueError:
        return "refused"
    return "parsed"


@cache
def _names() -> tuple[str, ...]:
    theirs = (other_clients.LIBRDKAFKA, other_clients.JAVA, other_clients.AIOKAFKA, other_clients.RUBY_KAFKA)
    return (*" ".join(theirs).split(), *sorted(NAMED), "nonsense", "")


def _draw_settings(rng: Random) -> dict[str, Any]:
    return {rng.choice(_names()): rng.choice(_VALUES) for _ in range(rng.randrange(1, 6))}


def _check_settings(given: dict[str, Any]) -> str:
    try:
        settings_from(given)
    except (TypeError, ValueError):
        return "refused"
    return "translated"


OWN_INPUTS = [
    Target("lines", 10, _draw_line, _check_line, lambda fuzzed: len(fuzzed[1])),
    Target("settings", 10, _draw_settings, _check_settings, lambda _: 10_000),
]
