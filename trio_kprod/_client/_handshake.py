"""What comes before the first request of a connection: TLS, ApiVersions, SASL."""

from __future__ import annotations

import random
import ssl
from collections.abc import Awaitable, Callable, Sequence
from math import inf
from typing import TYPE_CHECKING, Any

import kafka.errors
import trio
from kafka.protocol.metadata.api_versions import ApiVersionsRequest

from .._errors import ProducerError
from .._version import __version__
from ._reasons import causes, is_about_certificate, reason
from ._sasl import Authenticator

if TYPE_CHECKING:
    from .._settings import Settings

#: What the broker's statistics show us as. Kafka allows letters, digits, "-" and "." only (KIP-511).
SOFTWARE_NAME = "trio-kprod"

#: The first with the format of records that we write: version 3 of Produce (KIP-98).
OLDEST_KAFKA = "0.11"

#: Sends a request of the connection's own, and returns its response.
Ask = Callable[..., Awaitable[Any]]


class SetupFailed(ProducerError):
    """A connection could not be opened; the text says in one line what was being done and the true cause.

    Args:
        hint: a guess at what is wrong, for the end of the text.

    Attributes:
        fatal (bool): it is about credentials, certificates or settings, so another attempt will not help.
        plain (str): the text without the hint.
    """

    def __init__(self, text: str, *, fatal: bool = False, hint: str = "") -> None:
        super().__init__(text + hint)
        self.fatal = fatal
        self.plain = text


class Handshake:
    """Agrees with the broker on TLS and versions, and authenticates.

    Args:
        host (str): the broker's name, as it was configured.
        settings (Settings): the producer's.
        needs: (request class, lowest usable version) pairs; `introduce` fails if the broker lacks one.
        provider_limiter (trio.CapacityLimiter | None): bounds the threads in which token providers run.

    Attributes:
        doing (str): the step that was begun last.
        renew_at (float): when to authenticate again (KIP-368).
    """

    def __init__(
        self,
        host: str,
        settings: Settings,
        needs: Sequence[tuple[Any, int]],
        provider_limiter: trio.CapacityLimiter | None,
    ) -> None:
        self.doing = "connecting"
        self.renew_at = inf
        self._host = host
        self._settings = settings
        self._needs = needs
        self._versions: dict[int, tuple[int, int]] = {}
        self._broker_has_spoken = False
        self._authenticator: Authenticator | None = None
        if settings.sasl_mechanism is not None:
            self._authenticator = Authenticator(
                settings.sasl_mechanism, settings.sasl_options, host, provider_limiter
            )

    async def start_tls(self, transport: trio.abc.Stream, context: ssl.SSLContext) -> trio.abc.Stream:
        """Return the stream over TLS."""
        self.doing = "TLS handshake"
        # A certificate names the host without the dot that keeps a resolver from adding a domain.
        hostname = self._host.strip("[]").rstrip(".")
        try:
            stream = trio.SSLStream(transport, context, server_hostname=hostname, https_compatible=True)
        except (ValueError, TypeError, ssl.SSLError) as error:
            raise SetupFailed(f"{self.doing}: {error}", fatal=True) from error
        await stream.do_handshake()
        return stream

    async def introduce(self, ask: Ask) -> None:
        """Learn the broker's versions, and authenticate."""
        self.doing = "ApiVersions"
        await self._ask_versions(ask)
        for request_class, lowest in self._needs:
            self.usable_version(request_class, lowest)
        await self.authenticate(ask)

    async def _ask_versions(self, ask: Ask) -> None:
        version = ApiVersionsRequest.max_version
        while True:
            response = await ask(
                ApiVersionsRequest(
                    version=version, client_software_name=SOFTWARE_NAME, client_software_version=__version__
                )
            )
            self._broker_has_spoken = True
            if response.error_code != kafka.errors.UnsupportedVersionError.errno or version == 0:
                break
            # Since Kafka 2.4 the refusal says what the broker would have taken (KIP-511).
            offered = {key.api_key: key.max_version for key in response.api_keys or ()}
            version = max(0, min(version - 1, offered.get(ApiVersionsRequest.API_KEY, 0)))
        if response.error_code:
            name = kafka.errors.for_code(response.error_code).message
            raise SetupFailed(f"{self.doing}: {name} ({response.error_code})")
        self._versions = {key.api_key: (key.min_version, key.max_version) for key in response.api_keys or ()}

    async def authenticate(self, ask: Ask) -> None:
        """Show who we are, if the settings say so; raises `AuthenticationFailed`."""
        if self._authenticator is None:
            return
        self.doing = f"SASL {self._settings.sasl_mechanism} authentication"
        lifetime = await self._authenticator.authenticate(ask, self.version)
        # As Java: early, and not all connections of a client at once. A second at least, so that a broker
        # that grants less leaves room for requests.
        share = random.uniform(0.85, 0.95)
        self.renew_at = trio.current_time() + max(lifetime, 1.0) * share if lifetime else inf

    def failure(self, error: Exception) -> SetupFailed:
        """What to raise because of an error in the step that was begun last."""
        fatal = getattr(error, "fatal", False) or any(map(is_about_certificate, causes(error)))
        hint = ""
        if self.doing == "TLS handshake":
            hint = "; perhaps this is no TLS port (security_protocol)"
        elif (
            self.doing == "ApiVersions" and not self._broker_has_spoken and self._settings.ssl_context is None
        ):
            hint = "; perhaps this is a TLS port (security_protocol)"
        return SetupFailed(f"{self.doing}: {reason(error)}", fatal=fatal, hint="" if fatal else hint)

    def version(self, request_class: Any) -> int | None:
        """The highest version of a request that both sides speak; None if there is none."""
        if request_class.API_KEY not in self._versions:
            return None
        lowest, highest = self._versions[request_class.API_KEY]
        version: int = min(highest, request_class.max_version)
        return version if version >= max(lowest, 0) else None

    def usable_version(self, request_class: Any, lowest: int) -> int:
        """The same, but raises `SetupFailed` if there is none, or none from `lowest` on."""
        version = self.version(request_class)
        if version is None or version < lowest:
            offered = self._versions.get(request_class.API_KEY)
            raise SetupFailed(_unusable(request_class, lowest, offered), fatal=True)
        return version


def _unusable(request_class: Any, lowest: int, offered: tuple[int, int] | None) -> str:
    """Why no version can be used of those that are `offered`, and what to do."""
    name, highest = request_class.__name__.removesuffix("Request"), request_class.max_version
    if offered is None:
        return f"it takes no {name} requests; perhaps this is the port of a Kafka controller, not of a broker"
    first, last = offered
    takes = f"it takes {name} requests of version {first} to {last}, we send {lowest} to {highest}"
    if first > highest:
        return f"this broker is too new for this version of trio_kprod: {takes}; upgrade trio_kprod"
    if first <= last < lowest:
        return (
            f"this broker is older than Kafka {OLDEST_KAFKA}, the oldest that we can use: {takes}; upgrade it"
        )
    return f"no version of {name} requests that we can use: {takes}"
