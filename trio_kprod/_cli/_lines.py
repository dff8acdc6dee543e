"""Lines as messages: plain ones, and JSON objects; and undelivered messages as the same JSON lines."""

from __future__ import annotations

import base64
import binascii
import json
from dataclasses import dataclass
from typing import Any, NamedTuple

from .._errors import printable
from .._messages import Message

_FIELDS = {"value", "key", "headers", "partition", "timestamp_ms"}


class Parsed(NamedTuple):
    """The arguments of a send, but for the topic."""

    value: bytes | None
    key: bytes | None = None
    headers: list[tuple[str, bytes | None]] | None = None
    partition: int | None = None
    timestamp_ms: int | None = None


@dataclass(frozen=True, slots=True)
class Format:
    """How lines are read.

    Attributes:
        as_json: each is an object with value, key, headers, partition and timestamp_ms.
        base64: in JSON, values, keys and headers' values are base64, so that they need not be text.
        key_separator: in plain lines, what separates key and value.
        headers: for messages that have none of their own.
        partition: the same.
    """

    as_json: bool = False
    base64: bool = False
    key_separator: str | None = None
    headers: tuple[tuple[str, bytes], ...] = ()
    partition: int | None = None

    def parse(self, line: bytes) -> Parsed:
        """Raises `ValueError`."""
        try:
            parsed = self._object(line) if self.as_json else self._plain(line)
        except RecursionError:
            raise ValueError("nested too deeply") from None
        if parsed.headers is None and self.headers:
            parsed = parsed._replace(headers=list(self.headers))
        if parsed.partition is None:
            parsed = parsed._replace(partition=self.partition)
        return parsed

    def _plain(self, line: bytes) -> Parsed:
        if self.key_separator is None:
            return Parsed(line)
        key, separator, value = line.partition(self.key_separator.encode())
        if not separator:
            raise ValueError(f"no {self.key_separator!r} between key and value")
        return Parsed(value, key)

    def _object(self, line: bytes) -> Parsed:
        try:
            given = json.loads(line)
        except ValueError as error:
            raise ValueError(f"not JSON: {error}") from None
        if not isinstance(given, dict):
            raise ValueError("not a JSON object")
        unknown = given.keys() - _FIELDS
        if unknown:
            names = printable(", ".join(sorted(unknown)))
            raise ValueError(f"unknown field: {names}; there are {', '.join(sorted(_FIELDS))}")
        headers = given.get("headers")
        return Parsed(
            self._bytes("value", given.get("value")),
            self._bytes("key", given.get("key")),
            None if headers is None else self._headers(headers),
            given.get("partition"),
            given.get("timestamp_ms"),
        )

    def _headers(self, given: Any) -> list[tuple[str, bytes | None]]:
        pairs = list(given.items()) if isinstance(given, dict) else given
        try:
            return [(name, self._bytes(f"header {name!r}", value)) for name, value in pairs]
        except TypeError:
            raise ValueError("headers must be an object, or a list of pairs") from None

    def _bytes(self, what: str, given: Any) -> bytes | None:
        if given is None:
            return None
        if not isinstance(given, str):
            given = json.dumps(given, ensure_ascii=False)  # a number, an object: as JSON
            if self.base64:
                raise ValueError(f"{what} is no text")
        if not self.base64:
            return given.encode()  # type: ignore[no-any-return]
        try:
            return base64.b64decode(given, validate=True)
        except binascii.Error:
            raise ValueError(f"{what} is not base64") from None


def as_line(message: Message) -> str:
    """A message as a JSON line that `send --json --base64` takes."""
    fields: dict[str, Any] = {"value": _text(message.value)}
    if message.key is not None:
        fields["key"] = _text(message.key)
    if message.headers:
        fields["headers"] = [[name, _text(value)] for name, value in message.headers]
    if message.partition is not None:
        fields["partition"] = message.partition
    fields["timestamp_ms"] = message.timestamp_ms
    return json.dumps(fields)


def _text(data: bytes | None) -> str | None:
    return None if data is None else base64.b64encode(data).decode()
