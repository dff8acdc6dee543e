"""`settings_from`: other clients' settings, or those of an environment, as arguments of `open_producer`."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from ._config import NAMED, ClientConfig, ProducerSettings, unknown
from ._other_clients import Translate, codec, or_never, or_system, other, plain, setting
from ._parse import as_given, flag, number, text
from ._problems import Problems

if TYPE_CHECKING:
    from typing_extensions import Unpack

#: If neither a threshold nor an interval is given: 5 ms, as librdkafka and Java have it.
_THEIR_INTERVAL = 0.005


def settings_from(
    mapping: Mapping[str, Any], *, prefix: str = "", **defaults: Unpack[ProducerSettings]
) -> ProducerSettings:
    """Turn settings of another client, or environment variables, into arguments for `open_producer`.

    ::

        settings = settings_from({"bootstrap.servers": "kafka:9092", "linger.ms": 100, "acks": "all"})
        async with open_producer(**settings) as producer: ...

        settings = settings_from(os.environ, prefix="KAFKA_", compression_type="zstd")

    The names may be those of librdkafka, Kafka's Java client, kafka-python, aiokafka, ruby-kafka, or our own.
    Dots and underscores are the same, and so are small and capital letters: ``linger.ms``, ``LINGER_MS``.
    Values may be text: ``"100"``, ``"1.5"``, ``"true"``. Milliseconds become seconds where our setting is in
    seconds. None and ``""`` stand for a setting that is not set.

    The other clients send by themselves, by default after 5 ms (librdkafka and Java). So if no setting says
    when to deliver, the result has ``delivery_interval=0.005``. Every other setting that is left out has the
    default of `open_producer`.

    Values are only read here. `open_producer` checks them.

    Args:
        mapping: the settings by name, such as a dict or `os.environ`.
        prefix: if given, only names that begin with it count, and it is cut off. Variables that Kubernetes
            sets for a service, such as ``KAFKA_SERVICE_HOST``, are skipped.
        **defaults: arguments of `open_producer` that hold where `mapping` does not say otherwise. Give them
            here and not to `open_producer`, which would refuse an argument that the result has as well.

    Raises:
        TypeError: a name that no client has, or that has no counterpart here; the text says why. A value of
            the wrong type.
        ValueError: a value that has no counterpart, two names for the same setting, or `os.environ` without
            a prefix.
        SettingsError: several of these, with all of them.
    """
    if mapping is os.environ and not prefix:
        raise ValueError("settings_from(os.environ) needs a prefix, such as prefix='KAFKA_'")
    given = _given(mapping, prefix)
    known = {plain(name.removeprefix(prefix)): value for name, value in given.items()}
    problems = Problems()
    origins: dict[str, str] = {}
    result: dict[str, Any] = dict(defaults)
    for name, value in given.items():
        with problems.kept():
            translated = _translate(name, prefix, value, known)
            for ours in translated:
                _refuse_second(ours, name, origins)
            result.update(translated)
    problems.tell()
    if not {"delivery_interval", "delivery_threshold"} & result.keys():
        result["delivery_interval"] = _THEIR_INTERVAL
    return result  # type: ignore[return-value]  # its keys are the names of settings, one at a time


#: What Kubernetes sets in every container for a service, here without the name of the service.
_OF_KUBERNETES = re.compile(r"SERVICE_HOST|SERVICE_PORT(_\w+)?|PORT(_\d+_(TCP|UDP)(_\w+)?)?")


def _given(mapping: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """The entries that count: those that have the prefix and are set."""
    return {
        name: value
        for name, value in mapping.items()
        if name.startswith(prefix)
        and not (prefix and _OF_KUBERNETES.fullmatch(name.removeprefix(prefix)))
        and _is_set(name.removeprefix(prefix), value)
    }


def _is_set(name: str, value: Any) -> bool:
    # In Java the empty string has a meaning for this one: no check.
    return value is not None and (value != "" or plain(name) == "ssl_endpoint_identification_algorithm")


def _translate(name: str, prefix: str, value: Any, known: Mapping[str, Any]) -> Mapping[str, Any]:
    own = plain(name.removeprefix(prefix))
    if own in _OWN:
        return _OWN[own](name, value, known)
    if own in NAMED:
        raise TypeError(f"{name} cannot be translated: give {own} to open_producer itself")
    row = other(own)
    if row is None or row.translate is None:
        raise unknown(name, own)
    return row.translate(name, value, known)


def _refuse_second(ours: str, name: str, origins: dict[str, str]) -> None:
    first = origins.setdefault(ours, name)
    if first != name:
        raise ValueError(f"{name} and {first} both set {ours}: leave one out")


# ---------------------------------------------------------------------------------------------------------
# Our own names, and those that are the same elsewhere


def _acks(name: str, value: Any) -> Any:
    return value if value == "all" else number(name, value)


def _level(name: str, value: Any, _: Mapping[str, Any]) -> Mapping[str, Any]:
    level = number(name, value)
    # librdkafka's -1 is the codec's own default.
    return {} if level == -1 else {"compression_level": level}


def _partitioner(name: str, value: Any, _: Mapping[str, Any]) -> Mapping[str, Any]:
    # librdkafka names its own; one of them does what happens here by default.
    if isinstance(value, str) and value != "murmur2_random":
        raise ValueError(
            f"{name}={value!r} is not possible here: by default keys go where murmur2 sends them, as in Java "
            "and with 'murmur2_random'; give a function as partitioner"
        )
    return {} if isinstance(value, str) else {"partitioner": value}


def _capitals(name: str, value: Any) -> str:
    return text(name, value).upper()


_PARSERS: Mapping[str, Callable[[str, Any], Any]] = {
    "acks": _acks,
    "allow_auto_create_topics": flag,
    "bootstrap_servers": as_given,
    "compression_type": codec,
    "connections_max_idle_ms": or_never,
    "receive_buffer_bytes": or_system,
    "sasl_mechanism": _capitals,
    "security_protocol": _capitals,
    "send_buffer_bytes": or_system,
    "ssl_check_hostname": flag,
}
_OBJECTS = {"key_serializer", "value_serializer", "instruments", "on_undelivered", "logger"}
_NUMBERS = {name for name in NAMED if name not in _OBJECTS} | {
    "batch_size",
    "max_request_size",
    "receive_message_max_bytes",
    *(name for name in ClientConfig.__optional_keys__ if name.endswith("_ms")),
}

_OWN: Mapping[str, Translate] = {
    **{name: setting(name, as_given) for name in ClientConfig.__optional_keys__},
    **{name: setting(name, number) for name in _NUMBERS},
    **{name: setting(name, parse) for name, parse in _PARSERS.items()},
    "compression_level": _level,
    "partitioner": _partitioner,
}
