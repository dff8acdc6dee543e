"""The embedded broker in a process of its own: what it takes of processor and memory is not ours."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Sequence
from multiprocessing import get_context, parent_process
from multiprocessing.managers import BaseManager
from typing import TYPE_CHECKING, Any

from trio_kprod.testing import open_broker

if TYPE_CHECKING:
    from typing_extensions import Self


class Host:
    """Lives in the broker's process, and does there what it is told."""

    def __init__(self, **options: Any) -> None:
        # In a session of its own: a shell that ends lets what is frozen in its own go on.
        os.setsid()
        threading.Thread(target=_end_with_parent, daemon=True).start()
        self._broker = open_broker(**options)
        self._broker.__enter__()

    def look(self) -> tuple[int, str]:
        """Process id, and where the broker listens."""
        return os.getpid(), self._broker.bootstrap_servers

    def topics(self) -> dict[str, int]:
        """How many partitions each topic has."""
        return self._broker.topics

    def values(self, topics: Sequence[str]) -> dict[str, list[bytes | None]]:
        """What is in each of them, by partition and offset."""
        return {name: [one.value for one in self._broker.records(name)] for name in topics}

    def do(self, name: str, *arguments: Any, **options: Any) -> None:
        """Call a method of the broker."""
        getattr(self._broker, name)(*arguments, **options)


def _end_with_parent() -> None:
    parent = parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


class _Manager(BaseManager):
    """Starts the process, and passes calls on."""


_Manager.register("Host", Host)


class RemoteBroker:
    """What `trio_kprod.testing.open_broker` gives, elsewhere; it ends with its ``with``.

    Args:
        **options: those of `open_broker`.

    Attributes:
        pid: of its process.
        servers: what to give to a client.
    """

    def __init__(self, **options: Any) -> None:
        self._manager = _Manager(ctx=get_context("spawn"))
        self._manager.start()
        self._host: Any = self._manager.Host(**options)  # type: ignore[attr-defined]
        self.pid, self.servers = self._host.look()

    @property
    def topics(self) -> dict[str, int]:
        """How many partitions each topic has."""
        found: dict[str, int] = self._host.topics()
        return found

    def values(self, topics: Sequence[str]) -> dict[str, list[bytes]]:
        """What is in each of them, by partition and offset."""
        found: dict[str, list[bytes]] = self._host.values(topics)
        return found

    def do(self, name: str, *arguments: Any, **options: Any) -> None:
        """Call a method of the broker; what it returns stays there."""
        self._host.do(name, *arguments, **options)

    def go_away(self) -> None:
        """End every connection, and refuse others."""
        self.do("stop_listening")
        self.do("disconnect_all")

    def come_back(self) -> None:
        """Accept connections again."""
        self.do("start_listening")

    def freeze(self) -> None:
        """Freeze its process: connections stay open, and nothing answers."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on; no harm if it does."""
        os.kill(self.pid, signal.SIGCONT)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.thaw()
        self._manager.shutdown()
