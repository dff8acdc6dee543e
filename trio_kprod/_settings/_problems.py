"""Everything that is wrong with the settings, told in one error.

The checks raise as if each were the only one. `Problems` keeps what they raise, so that a user who has made
three mistakes learns of all three at once.
"""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

from .._errors import SettingsError


class Problems:
    """What is wrong so far. `tell` raises it."""

    def __init__(self) -> None:
        self._found: list[Exception] = []

    def add(self, error: Exception) -> None:
        self._found.append(error)

    @contextmanager
    def kept(self) -> Generator[None, None, None]:
        """Keep the error that leaves the block, if one does, and go on after the block."""
        try:
            yield
        except (TypeError, ValueError, ModuleNotFoundError) as error:
            self.add(error)

    def __len__(self) -> int:
        return len(self._found)

    def tell(self) -> None:
        """Return if nothing is wrong. One error is raised as it is, several as a `SettingsError`."""
        found, self._found = self._found, []
        try:
            if len(found) == 1:
                raise found[0]
            if found:
                raise SettingsError(found)
        finally:
            del found  # each error has this frame in its traceback: without this they would be a cycle
