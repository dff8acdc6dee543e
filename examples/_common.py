"""What every example needs: ``--bootstrap-servers``, and an embedded broker where it is not given."""

from __future__ import annotations

import argparse
import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from trio_kprod.testing import open_broker


def arguments(intent: str | None) -> argparse.ArgumentParser:
    """A parser for ``--bootstrap-servers`` and ``--topic``; an example adds what else it takes."""
    parser = argparse.ArgumentParser(description=intent)
    parser.add_argument("--bootstrap-servers", metavar="HOST:PORT[,...]", help="default: an embedded broker")
    # A name that nobody has: an example must not write into a topic that is in use.
    parser.add_argument("--topic", default=f"trio-kprod-{uuid.uuid4().hex[:8]}", help="default: a new one")
    return parser


@asynccontextmanager
async def some_kafka(bootstrap_servers: str | None) -> AsyncIterator[str]:
    """The address of the Kafka given, or else of a broker that lives as long as the block."""
    if bootstrap_servers is not None:
        yield bootstrap_servers
    else:
        async with open_broker() as broker:
            yield broker.bootstrap_servers
