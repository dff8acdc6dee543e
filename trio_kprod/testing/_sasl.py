"""The broker's side of SASL: PLAIN (RFC 4616) and SCRAM (RFC 5802) against a table of passwords."""

from __future__ import annotations

import base64
import hashlib
import hmac
import secrets
from collections.abc import Mapping
from typing import Protocol

_ITERATIONS = 4096  # the least Kafka accepts
_SCRAM_HASHES = {"SCRAM-SHA-256": "sha256", "SCRAM-SHA-512": "sha512"}

#: What this broker enables.
MECHANISMS = ("PLAIN", *_SCRAM_HASHES)


class AuthenticationFailed(Exception):
    """The credentials are wrong, or the client does not speak the mechanism; it is sent the text."""


class Exchange(Protocol):
    """One authentication under way."""

    done: bool

    def step(self, data: bytes) -> bytes:
        """What to answer to the client's bytes. Raises `AuthenticationFailed`."""
        ...


def start_exchange(mechanism: str, users: Mapping[str, str]) -> Exchange:
    """Begin an authentication by one of `MECHANISMS`."""
    return Plain(users) if mechanism == "PLAIN" else Scram(users, _SCRAM_HASHES[mechanism])


class Plain:
    """One message: authorization identity, user and password, separated by zeros."""

    def __init__(self, users: Mapping[str, str]) -> None:
        self._users = users
        self.done = False

    def step(self, data: bytes) -> bytes:
        """Check the only message."""
        parts = data.decode("utf-8", "replace").split("\0")
        if len(parts) != 3 or self._users.get(parts[1]) != parts[2]:
            raise AuthenticationFailed("Authentication failed: Invalid username or password")
        self.done = True
        return b""


class Scram:
    """Two messages: the client names itself, then proves that it knows the password."""

    def __init__(self, users: Mapping[str, str], hash_name: str) -> None:
        self._users = users
        self._hash = hash_name
        self._salt = secrets.token_bytes(16)
        self._nonce = ""
        self._password: str | None = None
        self._auth_message = b""
        self.done = False

    def step(self, data: bytes) -> bytes:
        """Answer the first message with salt and nonce, the second with the server's own proof."""
        return self._prove(data) if self._nonce else self._challenge(data)

    def _challenge(self, data: bytes) -> bytes:
        _, _, bare = data.partition(b",,")
        fields = _fields(bare)
        user = fields.get("n", "").replace("=2C", ",").replace("=3D", "=")
        self._password = self._users.get(user)
        self._nonce = fields.get("r", "") + secrets.token_hex(16)
        salt = base64.b64encode(self._salt).decode()
        first = f"r={self._nonce},s={salt},i={_ITERATIONS}".encode()
        self._auth_message = bare + b"," + first
        return first

    def _prove(self, data: bytes) -> bytes:
        without_proof, _, proof = data.rpartition(b",p=")
        message = self._auth_message + b"," + without_proof
        salted = hashlib.pbkdf2_hmac(self._hash, (self._password or "").encode(), self._salt, _ITERATIONS)
        client_key = self._hmac(salted, b"Client Key")
        signature = self._hmac(hashlib.new(self._hash, client_key).digest(), message)
        expected = base64.b64encode(bytes(a ^ b for a, b in zip(client_key, signature, strict=True)))
        nonce = _fields(without_proof).get("r")
        if self._password is None or nonce != self._nonce or not hmac.compare_digest(expected, proof):
            raise AuthenticationFailed(
                "Authentication failed during authentication due to invalid credentials"
            )
        self.done = True
        return b"v=" + base64.b64encode(self._hmac(self._hmac(salted, b"Server Key"), message))

    def _hmac(self, key: bytes, message: bytes) -> bytes:
        return hmac.new(key, message, self._hash).digest()


def _fields(message: bytes) -> dict[str, str]:
    pairs = (part.partition("=") for part in message.decode("utf-8", "replace").split(","))
    return {name: value for name, _, value in pairs}
