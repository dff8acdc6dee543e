"""What it means that a connection could not be opened: who refused whom, what to do, whether to wait."""

from __future__ import annotations

import errno
import ssl
from typing import NamedTuple

_VERSIONS = (
    "allow a version that both have:"
    " minimum_version and maximum_version of ssl_context here, ssl.enabled.protocols there"
)
_CIPHERS = "allow a cipher that both have: ssl_ciphers or ssl_context here, ssl.cipher.suites there"
_NO_KAFKA = "is this the port of a Kafka listener?"
_UNKNOWN_AUTHORITY = (
    "give the authority that signed the broker's certificate: ssl_cafile, or within your own ssl_context"
)
_OWN_LIMITS = (errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM)

#: What to do about an address that we know only from the cluster itself.
ADVERTISED = "the cluster advertises this address (advertised.listeners): clients must be able to reach it"

#: Advice for some of OpenSSL's X509_V_ERR_...; most others mean an authority that we do not know.
_OF_THEIR_CERTIFICATE = {
    3: "ssl_crlfile has no list of the authority that signed the broker's certificate",
    9: "the broker's certificate is not valid yet: are the clocks right, here and there?",
    10: "the broker's certificate has expired: renew it",
    12: "the list in ssl_crlfile has expired: get a new one",
    23: "the broker's certificate has been revoked: the broker needs another one",
    62: "the certificate is for another name: use a name that is in it",
    64: "the certificate is for another address: use a name that is in it",
}

#: Parts of OpenSSL's reasons, what they mean, and what to do.
_OF_HANDSHAKES = (
    ("ALERT_PROTOCOL_VERSION", "the broker refuses our versions of TLS", _VERSIONS),
    ("ALERT_HANDSHAKE_FAILURE", "the broker refuses our ciphers", _CIPHERS),
    ("ALERT_INSUFFICIENT_SECURITY", "the broker refuses our ciphers", _CIPHERS),
    ("UNSUPPORTED_PROTOCOL", "this client refuses the broker's version of TLS", _VERSIONS),
    ("NO_PROTOCOLS_AVAILABLE", "this client has no version of TLS to offer", _VERSIONS),
    ("NO_CIPHERS_AVAILABLE", "this client has no cipher to offer", _CIPHERS),
)

#: Parts of its reasons for an answer that is no TLS. Which one it gives depends on OpenSSL's version.
_NO_TLS = ("WRONG_VERSION_NUMBER", "RECORD_LAYER_FAILURE", "PACKET_LENGTH_TOO_LONG")

#: Alerts of a server that is in trouble itself, or is being stopped.
_PASSING = ("INTERNAL_ERROR", "USER_CANCELLED")

#: How a TLS alert begins. Java's servers send one in response to anything but TLS.
_TLS_ALERT = b"\x15\x03"

_WITH_TLS = {"PLAINTEXT": "'SSL' or 'SASL_SSL'", "SASL_PLAINTEXT": "'SASL_SSL'"}
_WITHOUT_TLS = {"SSL": "'PLAINTEXT' or 'SASL_PLAINTEXT'", "SASL_SSL": "'SASL_PLAINTEXT'"}
_WITH_SASL = {"PLAINTEXT": "'SASL_PLAINTEXT'", "SSL": "'SASL_SSL'"}
_WITHOUT_SASL = {"SASL_PLAINTEXT": "'PLAINTEXT'", "SASL_SSL": "'SSL'"}


class Diagnosis(NamedTuple):
    """What a failure means.

    Attributes:
        what (str): one line, with who refused whom.
        advice (str): what to do; empty where nothing is known.
        fatal (bool): it is about credentials, certificates or settings: another attempt with the same
            settings will not help.
        lasting (bool): the next attempt will show the same until somebody changes something: the other side
            has shown that it speaks another protocol, or a token provider raised.
    """

    what: str
    advice: str = ""
    fatal: bool = False
    lasting: bool = False


def of_no_way(error: OSError | None, words: str, advice: str) -> Diagnosis:
    """What it means that an address cannot be reached; `error` is None if the time was over before one."""
    own = error is not None and error.errno in _OWN_LIMITS  # such a limit says nothing of the address
    return Diagnosis(words, "" if own else advice)


def of_tls(error: ssl.SSLError, protocol: str, our_certificate: str | None) -> Diagnosis:
    """What an error of TLS means.

    Args:
        protocol (str): the `security_protocol`.
        our_certificate (str | None): see `Settings.client_certificate`.
    """
    words = " ".join(str(error).split())
    if isinstance(error, ssl.SSLCertVerificationError):
        return _of_their_certificate(error, words)
    reason = error.reason or ""
    if "ALERT" in reason and ("CERT" in reason or "UNKNOWN_CA" in reason):
        return _of_our_certificate(words, our_certificate)
    for part, what, advice in _OF_HANDSHAKES:
        if part in reason:
            return Diagnosis(f"{what}: {words}", advice, lasting=True)
    if any(part in reason for part in _NO_TLS):
        return Diagnosis(f"the response is no TLS: {words}", no_tls(protocol), lasting=True)
    return Diagnosis(words, lasting=not any(part in reason for part in _PASSING))


def _of_their_certificate(error: ssl.SSLCertVerificationError, words: str) -> Diagnosis:
    code = getattr(error, "verify_code", 0)
    advice = _OF_THEIR_CERTIFICATE.get(code, _UNKNOWN_AUTHORITY)
    return Diagnosis(f"this client refuses the broker's certificate: {words}", advice, fatal=True)


def _of_our_certificate(words: str, certificate: str | None) -> Diagnosis:
    if certificate is None:
        advice = "give one that the broker trusts: ssl_certfile and ssl_keyfile"
        return Diagnosis(f"the broker wants a certificate of ours: {words}", advice, fatal=True)
    advice = "has it expired, and does the broker trust the authority that signed it?"
    return Diagnosis(f"the broker refuses our certificate ({certificate}): {words}", advice, fatal=True)


def of_nonsense(received: bytes, words: str, protocol: str) -> Diagnosis:
    """What it means that the first bytes of the other side are not Kafka's protocol."""
    if received.startswith(_TLS_ALERT):
        return tls_port("the port responds with a TLS alert", protocol)
    if received.startswith(b"HTTP/"):
        return Diagnosis("an HTTP server responds", _NO_KAFKA, lasting=True)
    return Diagnosis(words, _NO_KAFKA, lasting=True)


def tls_port(what: str, protocol: str) -> Diagnosis:
    """What it means that a port speaks TLS, and we do not."""
    return Diagnosis(what, f"this is a TLS port: use security_protocol={_WITH_TLS[protocol]}", lasting=True)


def no_tls(protocol: str) -> str:
    """What to do where a port does not speak TLS."""
    return f"use a port that speaks TLS, or security_protocol={_WITHOUT_TLS[protocol]}"


def plain_port(protocol: str) -> Diagnosis:
    """What it means that a port speaks Kafka's protocol without TLS, and we speak TLS."""
    return Diagnosis("this port speaks Kafka's protocol without TLS", no_tls(protocol), lasting=True)


def login_wanted(offered: str, protocol: str) -> Diagnosis:
    """What it means that a listener offers mechanisms of SASL, and we do not log in."""
    advice = f"use security_protocol={_WITH_SASL[protocol]} with a sasl_mechanism"
    return Diagnosis(f"this listener wants SASL, and offers: {offered}", advice, lasting=True)


def no_login(protocol: str) -> str:
    """What to do where a listener takes no SASL."""
    return f"use a listener that does, or security_protocol={_WITHOUT_SASL[protocol]}"
