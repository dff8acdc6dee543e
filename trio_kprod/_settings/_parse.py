"""Values as other clients and environments have them: "100", "true".

Each is called as ``parse(name, value)`` and returns what a setting of ours takes. `_config` checks whether
that is within bounds.
"""

from __future__ import annotations

from typing import Any

from ._checks import wrong_type, wrong_value


def as_given(name: str, value: Any) -> Any:  # noqa: ARG001  # called as all the others
    return value


def number(name: str, value: Any) -> Any:
    """An int or a float: as given, or read from text."""
    if isinstance(value, bool) or not isinstance(value, (int, float, str)):
        raise wrong_type(name, value, "a number")
    if not isinstance(value, str):
        return value
    for kind in (int, float):
        try:
            return kind(value)
        except ValueError:
            continue
    raise wrong_value(name, value, "a number")


_FLAGS = {"true": True, "1": True, "false": False, "0": False}


def flag(name: str, value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise wrong_type(name, value, "true or false")
    if value.lower() not in _FLAGS:
        raise wrong_value(name, value, "true or false")
    return _FLAGS[value.lower()]


def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong_type(name, value, "a string")
    return value
