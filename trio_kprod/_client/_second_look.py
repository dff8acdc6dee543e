"""If a port closed without a word, one more connection, made in another way, shows what the port speaks.

Kafka closes a connection whose first bytes it cannot read, and one that asks for something before it has
logged in. A proxy does the same while the Kafka behind it starts, so the close alone proves nothing. A second
look sends no secret: only a greeting, and the name of a mechanism that does not exist.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from ._connection import Connection, SetupFailed
from ._diagnosis import Diagnosis, login_wanted, plain_port, tls_port
from ._handshake import TLS_HANDSHAKE
from ._reasons import causes
from ._sasl import AuthenticationFailed

if TYPE_CHECKING:
    from .._settings import Settings

#: Makes a connection to the port, with other settings.
Connect = Callable[["Settings"], Connection]

#: No broker offers this mechanism. Each that takes SASL responds with those that it offers.
_NO_MECHANISM = "NONE"


async def look_again(failure: SetupFailed, settings: Settings, connect: Connect) -> SetupFailed:
    """Return the failure to open a connection, or a better one if a second look shows more."""
    if not failure.is_silent:
        return failure
    found: Diagnosis | None = None
    if failure.step == TLS_HANDSHAKE:
        if await _speaks_without_tls(settings, connect):
            found = plain_port(settings.security_protocol)
    elif settings.ssl_context is None and await _speaks_tls(settings, connect):
        found = tls_port("the broker closed the connection", settings.security_protocol)
    return failure if found is None else SetupFailed(failure.step, found)


async def look_for_login(settings: Settings, connect: Connect) -> SetupFailed | None:
    """A listener closed at the first request. If it wants a login and we have none, return that failure."""
    if settings.sasl_mechanism is not None:
        return None
    protocol = f"SASL_{settings.security_protocol}"
    login: dict[str, Any] = {"sasl_mechanism": _NO_MECHANISM, "sasl_options": {}}
    error = await _try(connect(replace(settings, security_protocol=protocol, **login)))
    refusal = None if error is None else error.__cause__
    if not isinstance(refusal, AuthenticationFailed) or not refusal.offered:
        return None
    return SetupFailed("", login_wanted(refusal.offered, settings.security_protocol))


async def _speaks_without_tls(settings: Settings, connect: Connect) -> bool:
    changes: dict[str, Any] = {"security_protocol": "PLAINTEXT", "ssl_context": None, "sasl_mechanism": None}
    return await _try(connect(replace(settings, **changes))) is None


async def _speaks_tls(settings: Settings, connect: Connect) -> bool:
    """Whether the port sends a certificate. This trusts none, so nothing is sent to a stranger."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    changes: dict[str, Any] = {"security_protocol": "SSL", "ssl_context": context, "sasl_mechanism": None}
    error = await _try(connect(replace(settings, **changes)))
    return any(isinstance(cause, ssl.SSLCertVerificationError) for cause in causes(error))


async def _try(connection: Connection) -> SetupFailed | None:
    """Open a connection and close it. Returns why it could not be opened, or None."""
    try:
        await connection.open()
    except SetupFailed as error:
        return error
    connection.close()
    await connection.serve()
    return None
