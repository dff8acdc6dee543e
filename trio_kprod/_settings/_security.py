"""TLS and SASL: kafka-python's ``security_protocol``, ``ssl_*`` and ``sasl_*``, checked and made ready.

kafka-python treats a mistyped protocol as PLAINTEXT, reads the files when it connects, and notices that a
password is missing when a broker asks for it. Here all of these are errors before the first connection.
An option that is None, or has its default, counts as not given.
"""

from __future__ import annotations

import importlib.util
import inspect
import platform
import ssl
from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from types import MappingProxyType
from typing import Any, NamedTuple

from ._checks import Check, anything, flag, instance_of, one_of, optional, path, secret, text, wrong_type
from ._problems import Problems

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")


class Security(NamedTuple):
    """The fields of `Settings` that are about TLS and SASL.

    `client_certificate` says where our own certificate comes from. None stands for none; a context of the
    user's may have one.
    """

    security_protocol: str
    ssl_context: ssl.SSLContext | None
    ssl_check_hostname: bool
    client_certificate: str | None = None
    sasl_mechanism: str | None = None
    sasl_options: Mapping[str, Any] = MappingProxyType({})


def make_security(given: Mapping[str, Any], problems: Problems) -> Security:
    """Check what was `given` of `OPTIONS`, read the files, and build the TLS context.

    If an option is wrong in itself, this neither checks how the options fit together nor reads files.
    """
    before = len(problems)
    values: dict[str, Any] = {"security_protocol": ""}
    for name, (default, check) in OPTIONS.items():
        with problems.kept():
            values[name] = check(name, given.get(name, default))
    protocol: str = values["security_protocol"]
    if len(problems) > before:
        return Security(protocol, None, False)
    changed = [name for name, (default, _) in OPTIONS.items() if values[name] != default]
    _refuse_useless(protocol, changed, problems)
    context = _tls_context(values, changed, problems) if protocol.endswith("SSL") else None
    check_hostname = context is not None and context.check_hostname
    certificate = _client_certificate(values)
    if not protocol.startswith("SASL_"):
        return Security(protocol, context, check_hostname, certificate)
    _check_mechanism(protocol, values, changed, problems)
    options = {
        name: value for name, value in values.items() if value is not None and not name.startswith("ssl_")
    }
    return Security(
        protocol, context, check_hostname, certificate, values["sasl_mechanism"], MappingProxyType(options)
    )


def _refuse_useless(protocol: str, changed: list[str], problems: Problems) -> None:
    for prefix, works, hint in (
        ("ssl_", protocol.endswith("SSL"), "'SSL' or 'SASL_SSL'"),
        ("sasl_", protocol.startswith("SASL_"), "'SASL_SSL' or 'SASL_PLAINTEXT'"),
    ):
        useless = next((name for name in changed if name.startswith(prefix) and not works), None)
        if useless:
            # One line for all of them: what is wrong is the protocol.
            problems.add(
                ValueError(f"{useless} has no effect with security_protocol={protocol!r}: use {hint}")
            )


# ---------------------------------------------------------------------------------------------------------
# TLS


def _tls_context(values: Mapping[str, Any], changed: list[str], problems: Problems) -> ssl.SSLContext:
    context: ssl.SSLContext | None = values["ssl_context"]
    if context is None:
        return _build_context(values, problems)
    for name in changed:
        if name.startswith("ssl_") and name != "ssl_context":
            problems.add(ValueError(f"{name} has no effect beside ssl_context: set it on the context itself"))
    if context.protocol == ssl.PROTOCOL_TLS_SERVER:
        problems.add(
            ValueError("ssl_context must be one for clients, such as ssl.create_default_context() returns")
        )
    return context


def _client_certificate(values: Mapping[str, Any]) -> str | None:
    if values["ssl_context"] is not None:
        return "that of ssl_context, if it has one"
    return None if values["ssl_certfile"] is None else f"ssl_certfile={values['ssl_certfile']!r}"


def _build_context(values: Mapping[str, Any], problems: Problems) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)  # to check the rest, if the next lines fail
    with problems.kept(), _reading("ssl_cafile", values["ssl_cafile"]):
        context = ssl.create_default_context(cafile=values["ssl_cafile"])
    # This switches off only the comparison with the host's name: the certificate is still verified.
    context.check_hostname = values["ssl_check_hostname"]
    with problems.kept():
        _load_certificate(context, values)
    if values["ssl_crlfile"] is not None:
        with problems.kept(), _reading("ssl_crlfile", values["ssl_crlfile"]):
            context.load_verify_locations(cafile=values["ssl_crlfile"])
        context.verify_flags |= ssl.VERIFY_CRL_CHECK_LEAF
    if values["ssl_ciphers"] is not None:
        with problems.kept():
            _set_ciphers(context, values["ssl_ciphers"])
    return context


def _load_certificate(context: ssl.SSLContext, values: Mapping[str, Any]) -> None:
    certfile, keyfile = values["ssl_certfile"], values["ssl_keyfile"]
    if certfile is None:
        for name in ("ssl_keyfile", "ssl_password"):
            if values[name] is not None:
                raise ValueError(f"{name} has no effect without ssl_certfile")
        return

    is_encrypted = False

    def password() -> str | bytes:
        # Without this OpenSSL would ask on the terminal, and wait.
        nonlocal is_encrypted
        is_encrypted = True
        if values["ssl_password"] is None:
            raise ValueError(f"the private key in {keyfile or certfile!r} is encrypted: give ssl_password")
        return values["ssl_password"]  # type: ignore[no-any-return]

    with _reading("ssl_keyfile", keyfile):
        pass
    with _reading("ssl_certfile", certfile):
        try:
            context.load_cert_chain(certfile, keyfile, password)
        except ssl.SSLError as error:
            raise ValueError(_certificate_fault(certfile, keyfile, error, is_encrypted)) from error


def _certificate_fault(certfile: str, keyfile: str | None, error: ssl.SSLError, is_encrypted: bool) -> str:
    """What is wrong with our own certificate: for most faults OpenSSL says only "PEM lib"."""
    key = f"ssl_keyfile={keyfile!r}" if keyfile else f"ssl_certfile={certfile!r}"
    if error.reason == "KEY_VALUES_MISMATCH":
        return f"{key} cannot be used: its private key belongs to another certificate than ssl_certfile has"
    if is_encrypted:
        return f"{key} cannot be used: ssl_password does not open its private key"
    if not _has(certfile, b"CERTIFICATE-----"):
        return f"ssl_certfile={certfile!r} cannot be used: it has no certificate in PEM"
    if not _has(keyfile or certfile, b"PRIVATE KEY-----"):
        advice = "" if keyfile else ": if the key is in another file, give ssl_keyfile"
        return f"{key} cannot be used: it has no private key in PEM{advice}"
    beside = f" with {key}" if keyfile else ""
    return f"ssl_certfile={certfile!r}{beside} cannot be used: {error.reason or 'one of them is damaged'}"


def _has(filename: str, mark: bytes) -> bool:
    with open(filename, "rb") as file:
        return mark in file.read()


def _set_ciphers(context: ssl.SSLContext, ciphers: str) -> None:
    try:
        context.set_ciphers(ciphers)
    except ssl.SSLError as error:
        raise ValueError(f"ssl_ciphers={ciphers!r}: OpenSSL knows no such cipher") from error


@contextmanager
def _reading(name: str, filename: str | None) -> Generator[None, None, None]:
    """Turn an error about a file into one that names the file and the option: `ssl` names neither."""
    try:
        if filename is not None:
            with open(filename, "rb"):
                pass
        yield
    except OSError as error:  # ssl.SSLError is one as well
        reason = error.reason if isinstance(error, ssl.SSLError) else error.strerror
        raise ValueError(f"{name}={filename!r} cannot be used: {reason or error}") from error


# ---------------------------------------------------------------------------------------------------------
# SASL


class _Mechanism(NamedTuple):
    required: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    module: str | None = None  # of another package that kafka-python needs for it


_LOGIN = ("sasl_plain_username", "sasl_plain_password")
_KERBEROS = ("sasl_kerberos_name", "sasl_kerberos_service_name", "sasl_kerberos_domain_name")

_MECHANISMS = {
    "PLAIN": _Mechanism(_LOGIN),
    "SCRAM-SHA-256": _Mechanism(_LOGIN),
    "SCRAM-SHA-512": _Mechanism(_LOGIN),
    "OAUTHBEARER": _Mechanism(("sasl_oauth_token_provider",)),
    "GSSAPI": _Mechanism(optional=_KERBEROS, module="sspi" if platform.system() == "Windows" else "gssapi"),
    "AWS_MSK_IAM": _Mechanism(module="botocore"),
}


def _check_mechanism(
    protocol: str, values: Mapping[str, Any], changed: list[str], problems: Problems
) -> None:
    from kafka.net.sasl import SASL_MECHANISMS

    name = values["sasl_mechanism"]
    if name not in SASL_MECHANISMS:
        known = ", ".join(map(repr, sorted(SASL_MECHANISMS)))
        problems.add(
            ValueError(
                f"sasl_mechanism must be one of {known} with security_protocol={protocol!r}, got {name!r}"
            )
        )
    rules = _MECHANISMS.get(name)
    if rules is not None:  # else the user registered it with kafka-python, which checks it
        for wrong in _faults(name, rules, protocol, changed):
            problems.add(wrong)


def _faults(name: str, rules: _Mechanism, protocol: str, changed: list[str]) -> Iterator[Exception]:
    for option in rules.required:
        if option not in changed:
            yield ValueError(f"sasl_mechanism={name!r} needs {option}")
    for option in changed:
        if option.startswith("sasl_") and option not in (
            "sasl_mechanism", *rules.required, *rules.optional
        ):  # fmt: skip
            yield ValueError(f"{option} has no effect with sasl_mechanism={name!r}")
    if name == "AWS_MSK_IAM" and protocol != "SASL_SSL":
        yield ValueError(f"sasl_mechanism='AWS_MSK_IAM' needs security_protocol='SASL_SSL', got {protocol!r}")
    if rules.module is not None and importlib.util.find_spec(rules.module) is None:
        yield ModuleNotFoundError(
            f"sasl_mechanism={name!r} needs the package {rules.module}, which is not installed",
            name=rules.module,
        )


def _token_provider(name: str, provider: Any) -> Any:
    """kafka-python wants a subclass of its own base class; here any object with ``token()`` is accepted."""
    from kafka.net.sasl.oauth import AbstractTokenProvider

    token = getattr(provider, "token", None)
    if isinstance(provider, type) or not callable(token) or inspect.iscoroutinefunction(token):
        raise wrong_type(name, provider, "an object with a method token() that returns a string, not async")
    if isinstance(provider, AbstractTokenProvider):
        return provider

    class Adapted(AbstractTokenProvider):  # type: ignore[misc]
        def token(self) -> Any:
            return provider.token()

        def extensions(self) -> Any:
            extensions = getattr(provider, "extensions", None)
            return extensions() if callable(extensions) else {}

    return Adapted()


def _key_password(name: str, value: Any) -> str | bytes:
    return value if isinstance(value, bytes) else secret(name, value)


#: Every option with its default (kafka-python's) and its check.
OPTIONS: Mapping[str, tuple[Any, Check]] = {
    "security_protocol": ("PLAINTEXT", one_of(dict(zip(PROTOCOLS, PROTOCOLS, strict=True)))),
    "ssl_context": (None, optional(instance_of(ssl.SSLContext))),
    "ssl_check_hostname": (True, flag),
    "ssl_cafile": (None, optional(path)),
    "ssl_certfile": (None, optional(path)),
    "ssl_keyfile": (None, optional(path)),
    "ssl_password": (None, optional(_key_password)),
    "ssl_crlfile": (None, optional(path)),
    "ssl_ciphers": (None, optional(text)),
    "sasl_mechanism": (None, optional(text)),
    "sasl_plain_username": (None, optional(text)),
    "sasl_plain_password": (None, optional(secret)),
    "sasl_kerberos_name": (None, anything),
    "sasl_kerberos_service_name": ("kafka", text),
    "sasl_kerberos_domain_name": (None, optional(text)),
    "sasl_oauth_token_provider": (None, optional(_token_provider)),
}
