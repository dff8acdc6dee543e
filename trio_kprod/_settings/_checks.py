"""Checks of single values: each returns the value as the package keeps it, or says what is wrong with it.

Every check is called as ``check(name, value)``. Its error names the argument, what was given and what is
allowed: a TypeError for the wrong kind of object, a ValueError for a wrong value. Secrets are never shown.
"""

from __future__ import annotations

import inspect
import math
import operator
import os
from collections.abc import Callable, Mapping
from typing import Any

Check = Callable[[str, Any], Any]

#: Longer than any sensible value, shorter than what floods a log.
_SHOWN = 100


def shown(value: object) -> str:
    """The value as error messages show it."""
    text = repr(value)
    return text if len(text) <= _SHOWN else f"{text[:_SHOWN]}..."


def wrong_type(name: str, value: object, allowed: str) -> TypeError:
    return TypeError(f"{name} must be {allowed}, got {shown(value)} ({type(value).__name__})")


def wrong_value(name: str, value: object, allowed: str) -> ValueError:
    return ValueError(f"{name} must be {allowed}, got {shown(value)}")


# ---------------------------------------------------------------------------------------------------------
# Numbers. A bool is not one: True for a count or a time is a mistake, not 1.


def integer(least: int, most: int | None = None) -> Callable[[str, Any], int]:
    allowed = f"an integer of at least {least}" + ("" if most is None else f" and at most {most}")

    def check(name: str, value: Any) -> int:
        if isinstance(value, bool) or not hasattr(value, "__index__"):
            raise wrong_type(name, value, allowed)
        number = operator.index(value)
        if number < least or (most is not None and number > most):
            raise wrong_value(name, value, allowed)
        return number

    return check


def whole(name: str, value: Any) -> int:
    """An integer of any size."""
    if isinstance(value, bool) or not hasattr(value, "__index__"):
        raise wrong_type(name, value, "an integer")
    return operator.index(value)


def duration(
    unit: str = "seconds", *, zero: bool = False, infinite: bool = False, most: float = math.inf
) -> Callable[[str, Any], float]:
    """A time in `unit`, returned in seconds."""
    scale = {"seconds": 1, "milliseconds": 1000}[unit]
    allowed = f"a number of {unit} {'of at least' if zero else 'above'} 0"
    allowed += ", or math.inf for no limit" if infinite else ", and finite"
    if most < math.inf:
        allowed += f", at most {most}"

    def check(name: str, value: Any) -> float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise wrong_type(name, value, allowed)
        # Written so that NaN, of which every comparison is false, fails too.
        enough = value >= 0 if zero else value > 0
        if not enough or value > most or (value == math.inf and not infinite):
            raise wrong_value(name, value, allowed)
        return _as_float(value) / scale

    return check


def _as_float(value: float) -> float:
    try:
        return float(value)
    except OverflowError:  # an integer that no float can hold: for ever
        return math.inf


# ---------------------------------------------------------------------------------------------------------
# Everything else


def optional(check: Check) -> Check:
    """None passes; anything else is checked."""
    return lambda name, value: None if value is None else check(name, value)


def anything(name: str, value: Any) -> Any:  # noqa: ARG001  # it is a `Check` all the same
    return value


def flag(name: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise wrong_type(name, value, "True or False")
    return value


def text(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise wrong_type(name, value, "a string")
    if not value:
        raise wrong_value(name, value, "a string that is not empty")
    return value


def secret(name: str, value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{name} must be a string, got an object of type {type(value).__name__}")
    if not value:
        raise ValueError(f"{name} must not be empty")
    return value


def path(name: str, value: Any) -> str:
    if not isinstance(value, (str, os.PathLike)):
        raise wrong_type(name, value, "the path of a file")
    return text(name, os.fspath(value))


def instance_of(kind: type, *more: type) -> Check:
    kinds = (kind, *more)
    allowed = " or ".join(f"a {one.__module__}.{one.__qualname__}" for one in kinds)

    def check(name: str, value: Any) -> Any:
        if not isinstance(value, kinds):
            raise wrong_type(name, value, allowed)
        return value

    return check


def one_of(meanings: Mapping[Any, Any]) -> Check:
    """One of the keys, returned as its meaning. ``True`` is not taken for the key ``1``."""
    allowed = "one of " + ", ".join(map(repr, meanings))
    kinds = {type(key) for key in meanings}

    def check(name: str, value: Any) -> Any:
        if type(value) not in kinds:
            raise wrong_type(name, value, allowed)
        if value not in meanings:
            raise wrong_value(name, value, allowed)
        return meanings[value]

    return check


def function(count: int) -> Callable[[str, Any], Callable[..., Any]]:
    """Something to call with `count` arguments and without await: an async function would never run."""

    def check(name: str, value: Any) -> Callable[..., Any]:
        if not callable(value):
            raise wrong_type(name, value, "a function")
        if is_async(value):
            raise wrong_type(name, value, "a plain function: it is called without await, but this is async")
        if not accepts(value, count):
            raise wrong_type(name, value, f"a function that can be called with {count} argument(s)")
        return value  # type: ignore[no-any-return]

    return check


def accepts(call: Callable[..., Any], count: int) -> bool:
    """Whether `call` can be called with `count` positional arguments, as far as its signature says."""
    try:
        inspect.signature(call).bind(*range(count))
    except TypeError:
        return False
    except ValueError:  # written in C, without a signature: assume that it can
        return True
    return True


def is_async(value: Any) -> bool:
    """Whether calling `value` only makes a coroutine."""
    return inspect.iscoroutinefunction(value) or inspect.iscoroutinefunction(
        getattr(type(value), "__call__", None)  # noqa: B004  # the method itself is asked for, not whether
    )
