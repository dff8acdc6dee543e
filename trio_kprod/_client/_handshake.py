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
from ._diagnosis import Diagnosis, of_nonsense, of_tls
from ._reasons import has_ended, reason, tls_error
from ._sasl import AuthenticationFailed, Authenticator

if TYPE_CHECKING:
    from .._settings import Settings

#: Our name in the broker's statistics. Kafka allows letters, digits, "-" and "." only (KIP-511).
SOFTWARE_NAME = "trio-kprod"

#: By the version of Produce that we need: the Kafka that brought it (KIP-98, KIP-110), and what to do about
#: an older one.
_BROUGHT_BY = {
    3: ("Kafka 0.11, the oldest that we can use", "upgrade it"),
    7: ("Kafka 2.1, the oldest that takes zstd", "upgrade it, or choose another compression_type"),
}

#: The step before the other side says anything.
CONNECTING = "connecting"

#: The steps in which the two sides find out whether they speak the same.
TLS_HANDSHAKE = "TLS handshake"
API_VERSIONS = "ApiVersions"

#: Sends a request of the connection's own, and returns its response.
Ask = Callable[..., Awaitable[Any]]


class SetupFailed(ProducerError):
    """A connection could not be opened; the text says in one line what was being done, the true cause, and
    what to do.

    Args:
        step: what was being done; empty if it does not matter.
        diagnosis: what the failure means.
        is_silent: see the attribute.

    Attributes:
        what (str): the text without the advice.
        advice (str), fatal (bool), lasting (bool): see `Diagnosis`.
        is_silent (bool): the other side closed before it had sent a byte, which may mean anything.
    """

    def __init__(self, step: str, diagnosis: Diagnosis, *, is_silent: bool = False) -> None:
        self.step = step
        self.what = f"{step}: {diagnosis.what}" if step else diagnosis.what
        self.advice = diagnosis.advice
        self.fatal = diagnosis.fatal
        self.lasting = diagnosis.lasting
        self.is_silent = is_silent
        super().__init__(f"{self.what}; {self.advice}" if self.advice else self.what)


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
        self.doing = CONNECTING
        self.renew_at = inf
        self._host = host
        self._settings = settings
        self._needs = needs
        self._versions: dict[int, tuple[int, int]] = {}
        self._broker_has_spoken = False
        self._authenticator: Authenticator | None = None
        if settings.sasl_mechanism is not None:
            self._authenticator = Authenticator(
                settings.sasl_mechanism,
                settings.sasl_options,
                settings.security_protocol,
                host,
                provider_limiter,
            )

    async def start_tls(self, transport: trio.abc.Stream, context: ssl.SSLContext) -> trio.abc.Stream:
        """Return the stream over TLS."""
        self.doing = TLS_HANDSHAKE
        # A certificate names the host without the dot that keeps a resolver from adding a domain.
        hostname = self._host.strip("[]").rstrip(".")
        try:
            stream = trio.SSLStream(transport, context, server_hostname=hostname, https_compatible=True)
        except (ValueError, TypeError, ssl.SSLError) as error:
            raise SetupFailed(self.doing, Diagnosis(str(error), fatal=True)) from error
        await stream.do_handshake()
        return stream

    async def introduce(self, ask: Ask) -> None:
        """Learn the broker's versions, and authenticate."""
        self.doing = API_VERSIONS
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
            raise SetupFailed(self.doing, Diagnosis(f"{name} ({response.error_code})"))
        self._versions = {key.api_key: (key.min_version, key.max_version) for key in response.api_keys or ()}

    async def authenticate(self, ask: Ask) -> None:
        """Show who we are, if the settings say so; raises `AuthenticationFailed`."""
        if self._authenticator is None:
            return
        self.doing = f"SASL {self._settings.sasl_mechanism} authentication"
        lifetime = await self._authenticator.authenticate(ask, self.version)
        # As Java: early, and not all connections of a client at once. A second at least, so that a broker
        # that grants less leaves room for requests.
        share = random.uniform(0.85, 0.95)  # noqa: S311 (no secret: jitter)
        self.renew_at = trio.current_time() + max(lifetime, 1.0) * share if lifetime else inf

    def failure(self, error: Exception, received: bytes, *, may_guess: bool) -> SetupFailed:
        """What to raise because of an error in the step that was begun last.

        Args:
            error: what a stream, a frame or the authentication raised.
            received: the first bytes that came and are not Kafka's protocol.
            may_guess: whether nothing is known yet of what the other side speaks.
        """
        protocol, tls = self._settings.security_protocol, tls_error(error)
        if isinstance(error, AuthenticationFailed):
            return SetupFailed(self.doing, error.diagnosis)
        if tls is not None:  # with TLS 1.3, the broker refuses our certificate after the handshake
            return SetupFailed(TLS_HANDSHAKE, of_tls(tls, protocol, self._settings.client_certificate))
        if self.doing == API_VERSIONS and received:
            return SetupFailed(self.doing, of_nonsense(received, reason(error), protocol))
        is_silent = (
            self.doing in (TLS_HANDSHAKE, API_VERSIONS) and not self._broker_has_spoken and has_ended(error)
        )
        advice = self._guess() if is_silent and may_guess else ""
        return SetupFailed(self.doing, Diagnosis(reason(error), advice), is_silent=is_silent)

    def _guess(self) -> str:
        if self.doing == TLS_HANDSHAKE:
            return "perhaps this is no TLS port (security_protocol)"
        if self._settings.ssl_context is None:
            return "perhaps this is a TLS port (security_protocol)"
        wants = "perhaps the broker wants a certificate of ours (ssl_certfile)"
        return wants if self._settings.client_certificate is None else ""

    def version(self, request_class: Any) -> int | None:
        """The highest version of a request that both sides speak, or None if they share no version."""
        if request_class.API_KEY not in self._versions:
            return None
        lowest, highest = self._versions[request_class.API_KEY]
        version: int = min(highest, request_class.max_version)
        return version if version >= max(lowest, 0) else None

    def usable_version(self, request_class: Any, lowest: int) -> int:
        """The same. Raises `SetupFailed` if they share no version, or only versions below `lowest`."""
        version = self.version(request_class)
        if version is None or version < lowest:
            offered = self._versions.get(request_class.API_KEY)
            raise SetupFailed("", Diagnosis(_unusable(request_class, lowest, offered), fatal=True))
        return version


def _unusable(request_class: Any, lowest: int, offered: tuple[int, int] | None) -> str:
    """Why none of the versions that are `offered` can be used, and what to do."""
    name, highest = request_class.__name__.removesuffix("Request"), request_class.max_version
    if offered is None:
        return f"it takes no {name} requests; perhaps this is the port of a Kafka controller, not of a broker"
    first, last = offered
    takes = f"it takes {name} requests of version {first} to {last}, we send {lowest} to {highest}"
    if first > highest:
        return f"this broker is too new for this version of trio_kprod: {takes}; upgrade trio_kprod"
    if first <= last < lowest:
        kafka, remedy = _BROUGHT_BY.get(lowest, _BROUGHT_BY[3])
        return f"this broker is older than {kafka}: {takes}; {remedy}"
    return f"no version of {name} requests that we can use: {takes}"
