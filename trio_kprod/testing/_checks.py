"""Checks of what a test scripts: nonsense is an error at the call, not a broken connection later."""

from __future__ import annotations

import math

_HIGHEST_PORT = 65535

#: The requests that the broker serves, by the names of Kafka's protocol guide.
API_NAMES = (
    "Produce",
    "Fetch",
    "ListOffsets",
    "Metadata",
    "SaslHandshake",
    "ApiVersions",
    "CreateTopics",
    "DeleteTopics",
    "InitProducerId",
    "SaslAuthenticate",
)


def check_api(name: object) -> None:
    """Raise unless it is the name of a request that the broker serves."""
    check_text("a request's name", name)
    if name not in API_NAMES:
        raise ValueError(f"a request's name must be one of {', '.join(API_NAMES)}; got {name!r}")


def check_text(name: str, value: object) -> None:
    """Raise unless it is a string."""
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string; got {value!r}")


def check_integer(name: str, value: object, least: int, unless: str = "") -> None:
    """Raise unless it is an integer of at least `least`; `unless` says what else is allowed."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"{name} must be an integer{unless}; got {value!r}")
    if value < least:
        raise ValueError(f"{name} must be {least} or more{unless}; got {value!r}")


def check_port(name: str, port: object, least: int = 1) -> None:
    """Raise unless it is a port."""
    if isinstance(port, bool) or not isinstance(port, int):
        raise TypeError(f"{name} must be an integer; got {port!r}")
    if not least <= port <= _HIGHEST_PORT:
        raise ValueError(f"{name} must be from {least} to {_HIGHEST_PORT}; got {port!r}")


def check_seconds(seconds: object) -> None:
    """Raise unless it is a time that one can wait."""
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise TypeError(f"seconds must be a number; got {seconds!r}")
    if not 0 <= seconds < math.inf:
        raise ValueError(f"seconds must be 0 or more, and finite; got {seconds!r}")
