"""Whatever the package says, to logs, in errors and in reprs, so that a test can look for secrets in it."""

from __future__ import annotations

import base64
import gc
import logging
import traceback
from contextlib import contextmanager
from typing import TYPE_CHECKING

import trio_kprod

if TYPE_CHECKING:
    from collections.abc import Iterator

    import pytest


class Overheard:
    """Texts that were said, and where."""

    def __init__(self) -> None:
        self.texts: list[tuple[str, str]] = []

    def error(self, error: BaseException) -> None:
        """An error with its causes, the errors within it, and their tracebacks without locals."""
        self.texts.append(("error", "".join(traceback.format_exception(error))))
        for one in [error, *getattr(error, "causes", {}).values()]:
            seen: BaseException | None = one
            while seen is not None:
                self.texts += [("error", str(seen)), ("error", repr(seen)), ("error", repr(vars(seen)))]
                seen = seen.__cause__ or seen.__context__

    def producer(self, producer: trio_kprod.Producer) -> None:
        """Its statistics, and the reprs of every object of the package that is alive."""
        self.texts.append(("statistics", repr(producer.statistics())))
        # Classes of some libraries have something else than a text there.
        ours = [one for one in gc.get_objects() if str(type(one).__module__).startswith("trio_kprod.")]
        self.texts += [(f"a {type(one).__name__}", f"{one!r} {one!s}") for one in ours]

    def has_any_of(self, secrets: list[str]) -> list[tuple[str, str]]:
        """Which texts have one of these secrets, as it is or in base64."""
        forms = [*secrets, *(base64.b64encode(one.encode()).decode().rstrip("=") for one in secrets)]
        return [one for one in self.texts if any(form in one[1] for form in forms)]


@contextmanager
def overhearing(caplog: pytest.LogCaptureFixture) -> Iterator[Overheard]:
    """Take all that is logged within the block, by whomever, from DEBUG on."""
    heard = Overheard()
    before = len(caplog.records)
    with caplog.at_level(logging.DEBUG):
        yield heard
    formatter = logging.Formatter("%(name)s %(message)s")
    for record in caplog.records[before:]:
        heard.texts += [("the log", formatter.format(record)), ("the log", repr(record.args))]
