"""What several instruments need: names of errors, and labels whose number has a bound."""

from __future__ import annotations

from trio_kprod import Refused

#: The label of everything beyond a bound.
OTHER = "other"


def error_name(error: BaseException) -> str:
    """A name for a class of errors, out of a small set: Kafka's own if a broker refused, else the class's."""
    return error.name if isinstance(error, Refused) else type(error).__qualname__


class BoundedLabels:
    """Lets the first `limit` different labels through; every later one is ``"other"``.

    Each label makes series that a metrics store keeps for good, so their number must not grow with use.
    """

    def __init__(self, limit: int) -> None:
        if limit < 1:
            raise ValueError(f"the number of labels must be positive, got {limit!r}")
        self._limit = limit
        self._known: set[str] = set()

    def __call__(self, label: str) -> str:
        if label not in self._known:
            if len(self._known) >= self._limit:
                return OTHER
            self._known.add(label)
        return label
