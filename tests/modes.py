"""Where the client of a test runs: in a thread of its own, or in the loop of the test.

The fixtures `own_thread` and `open_producer` in `conftest` run a test once in each.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

from trio_kprod import ProducerScope
from trio_kprod._client import LoopHost, ThreadHost

#: As `trio_kprod.open_producer`, but somebody else says where the client runs.
OpenProducer = Callable[..., ProducerScope[Any, Any]]


@contextmanager
def as_with_a_thread() -> Iterator[None]:
    """A block in which a client that shares a loop is woken, and wakes, as if it had a thread of its own.

    So what may happen between a call and its wake-up can be tested in virtual time.
    """
    seam = {name: vars(ThreadHost)[name] for name in ("shares_loop", "call")}
    with patch.multiple(LoopHost, **seam):
        yield
