"""The SASL exchange with a broker: who we are, by one of kafka-python's mechanisms.

A mechanism computes and knows no I/O, but some compute for long, or ask elsewhere: a token provider, a key
server, a ticket cache. Those run in a thread, which is left behind if the connection's deadline passes first.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import kafka.errors
import trio
from kafka.net.sasl import SASL_MECHANISMS, get_sasl_mechanism
from kafka.protocol.sasl import SaslAuthenticateRequest, SaslBytesRequest, SaslHandshakeRequest

from .._errors import LONGEST_TEXT, printable
from ._diagnosis import Diagnosis, no_login

#: These compute everything themselves.
_OWN_MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")

#: And this one computes nothing worth a thread. With SCRAM the broker says how much there is to compute.
_PROMPT_MECHANISM = "PLAIN"

_LOGIN = "are sasl_plain_username and sasl_plain_password right, and known to this listener?"

#: What to look at if the broker refuses us.
_CREDENTIALS = {
    **dict.fromkeys(_OWN_MECHANISMS, _LOGIN),
    "OAUTHBEARER": "is the token of sasl_oauth_token_provider valid, and for this broker?",
}

#: The fewest iterations of SCRAM that we accept (RFC 7677). With fewer, an impostor could guess the password
#: from our answer. Java asks for as many, and brokers store no fewer.
_FEWEST = 4096

#: No mechanism takes more steps, but a broker could ask for ever.
_MOST_STEPS = 20

#: Threads that wait for token providers, if no limiter is given: one, and one for an abandoned call.
_PROVIDER_THREADS = 2

Ask = Callable[..., Awaitable[Any]]


class AuthenticationFailed(Exception):
    """The broker refused us, or we have nothing to show it.

    Args:
        text: what happened.
        advice: what to do.

    Attributes:
        fatal (bool): another attempt with the same settings will not help.
        diagnosis (Diagnosis): all of it.
        offered (str): the mechanisms that the broker offers, if it refused ours.
    """

    def __init__(
        self, text: str, advice: str = "", *, fatal: bool = False, lasting: bool = False, offered: str = ""
    ) -> None:
        text = printable(text)
        super().__init__(text)
        self.fatal = fatal
        self.diagnosis = Diagnosis(text, advice, fatal, lasting)
        self.offered = offered


class Authenticator:
    """Authenticates one connection, when it is opened and again whenever the broker wants that (KIP-368).

    Args:
        mechanism (str): a name that kafka-python knows, such as ``"PLAIN"``.
        options (Mapping[str, Any]): keyword arguments for kafka-python's class.
        protocol (str): the `security_protocol`.
        host (str): the broker's name, as it was configured.
        limiter (trio.CapacityLimiter | None): bounds the threads of mechanisms that may block. Share one
            among connections, so that a provider that hangs holds a few threads, not one for each attempt.
    """

    def __init__(
        self,
        mechanism: str,
        options: Mapping[str, Any],
        protocol: str,
        host: str,
        limiter: trio.CapacityLimiter | None,
    ) -> None:
        self._name = mechanism
        self._protocol = protocol
        self._options = {**options, "host": host}
        self._limiter = limiter or trio.CapacityLimiter(_PROVIDER_THREADS)

    async def authenticate(self, ask: Ask, version: Callable[[Any], int | None]) -> float:
        """Run the exchange.

        Args:
            ask: sends a request and returns its response (None with ``expects_response=False``).
            version: the version to use of a request class, None if the broker has none.

        Returns:
            Seconds for which the broker takes this as proof; 0 for as long as the connection lasts.

        Raises:
            AuthenticationFailed: see there.
        """
        framed = await self._agree(ask, version)
        mechanism = await self._step(self._make, fatal=(ValueError, TypeError, KeyError, RuntimeError))
        lifetime_ms = steps = 0
        while not mechanism.is_done():
            steps += 1
            if steps > _MOST_STEPS:
                raise AuthenticationFailed(f"not finished after {_MOST_STEPS} steps", fatal=False)
            token = await self._step(mechanism.auth_bytes, fatal=self._own_fault())
            if framed is None and mechanism.is_done():
                # Without frames the last token of GSSAPI gets no response.
                await ask(_unframed(token), expects_response=False)
                break
            if framed is None:
                response = await ask(_unframed(token))
            else:
                response = await ask(SaslAuthenticateRequest(version=framed, auth_bytes=token))
            self._check(response)
            received = self._looked_at(response.auth_bytes)
            await self._step(partial(mechanism.receive, received), fatal=(Exception,))
            lifetime_ms = getattr(response, "session_lifetime_ms", None) or 0
        if not mechanism.is_authenticated():
            raise AuthenticationFailed("authentication failed", fatal=True)
        return max(lifetime_ms, 0) / 1000

    def _looked_at(self, data: bytes | None) -> bytes | None:
        """Check what the broker says, and return what the mechanism gets of it."""
        if self._name.startswith("SCRAM") and data:
            counts = [part[2:] for part in data.split(b",") if part.startswith(b"i=")]
            if not all(count.isdigit() and len(count) < 10 and int(count) >= _FEWEST for count in counts):
                told = b", ".join(counts)[:20].decode(errors="replace")
                raise AuthenticationFailed(
                    f"the broker wants {told} iterations, not {_FEWEST} or more", fatal=True
                )
        if self._name == "OAUTHBEARER" and data:  # a failure, which kafka-python logs as it is and ignores
            return repr(data)[:LONGEST_TEXT].encode()
        return data

    async def _agree(self, ask: Ask, version: Callable[[Any], int | None]) -> int | None:
        """Agree on the mechanism; returns the version of SaslAuthenticate, None for tokens without frames."""
        handshake = version(SaslHandshakeRequest)
        if handshake is None:
            raise AuthenticationFailed("the broker does not speak SASL", no_login(self._protocol), fatal=True)
        response = await ask(SaslHandshakeRequest(version=handshake, mechanism=self._name))
        if response.error_code == kafka.errors.UnsupportedSaslMechanismError.errno:
            offered = printable(", ".join(map(str, response.mechanisms or ())) or "none")
            raise AuthenticationFailed(
                f"the broker does not support the mechanism {self._name}; it offers: {offered}",
                "set sasl_mechanism to one of them",
                fatal=True,
                offered=offered,
            )
        self._check(response)
        return version(SaslAuthenticateRequest) if handshake >= 1 else None

    def _make(self) -> Any:
        if self._name not in SASL_MECHANISMS:
            raise ValueError(f"unknown mechanism {self._name!r}")
        return get_sasl_mechanism(self._name)(**self._options)

    def _own_fault(self) -> tuple[type[Exception], ...]:
        # A mechanism that computes everything itself can fail only because of its settings. A provider may
        # do better next time.
        if self._name in _OWN_MECHANISMS:
            return (Exception,)
        return (kafka.errors.KafkaConfigurationError,)

    async def _step(self, function: Callable[[], Any], fatal: tuple[type[Exception], ...]) -> Any:
        if self._name == _PROMPT_MECHANISM:
            result, error = _caught(Exception, function)
        else:
            # Also SystemExit and KeyboardInterrupt: Ctrl-C reaches no thread, so the provider raises them.
            result, error = await trio.to_thread.run_sync(
                _caught, BaseException, function, abandon_on_cancel=True, limiter=self._limiter
            )
        if error is not None:
            refused = isinstance(error, (*fatal, kafka.errors.KafkaConfigurationError))
            text = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
            if self._name == "OAUTHBEARER" and not refused:
                text = f"sasl_oauth_token_provider raised {text}"
            raise AuthenticationFailed(text, fatal=refused, lasting=True) from error
        return result

    def _check(self, response: Any) -> None:
        code = response.error_code
        if code == 0:
            return
        name = kafka.errors.for_code(code).message
        told = getattr(response, "error_message", None)  # a response to SaslHandshake has none
        if code == kafka.errors.SaslAuthenticationFailedError.errno:
            told = told or "the broker does not say why"
            advice = _CREDENTIALS.get(self._name, "")
            raise AuthenticationFailed(f"authentication failed: {told}", advice, fatal=True)
        if code == kafka.errors.IllegalSaslStateError.errno:
            text = f"{name} ({code}): this listener takes no SASL, or not now"
            raise AuthenticationFailed(text, no_login(self._protocol), fatal=True)
        raise AuthenticationFailed(f"{name} ({code})" + (f": {told}" if told else ""))


def _caught(kind: type[BaseException], function: Callable[[], Any]) -> tuple[Any, BaseException | None]:
    """What it returns, and what of this kind it raises: that means that this attempt has failed."""
    try:
        return function(), None
    except kind as error:
        return None, error


def _unframed(token: bytes) -> Any:
    return SaslBytesRequest(token)  # pyright: ignore[reportCallIssue]  # its stub lacks the argument
