"""The settings of other clients: how each becomes one of ours, or why it cannot.

`OTHERS` knows every setting that a producer has in librdkafka, confluent-kafka, Kafka's Java client,
kafka-python, aiokafka and ruby-kafka. Names are written as `plain` writes them, with underscores: Java's
``linger.ms`` and kafka-python's ``linger_ms`` are one entry. The names that we have too are not in it:
`_translate` reads those.

Sources: librdkafka's CONFIGURATION.md (2.15), ``ProducerConfig.configDef()`` of Kafka 4.1, the signatures of
kafka-python 3.0's `KafkaProducer` and aiokafka 0.14's `AIOKafkaProducer`, and ruby-kafka 1.5's
``Client#initialize``, ``#producer`` and ``#async_producer``.
"""

from __future__ import annotations

import math
import re
import socket
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from ._parse import as_given, flag, number, text

#: Called with the name as the user wrote it, the value, and all that was given, by `plain` names. Returns
#: settings of ours. Raises ValueError or TypeError for a value that has no counterpart.
Translate = Callable[[str, Any, Mapping[str, Any]], Mapping[str, Any]]


class Other(NamedTuple):
    """A setting of another client."""

    instead: str  # what to write here, or why there is nothing to write
    translate: Translate | None = None


def plain(name: str) -> str:
    """A name as `OTHERS` has it: ``linger.ms``, ``linger_ms`` and ``LINGER_MS`` are the same."""
    return name.replace(".", "_").replace("-", "_").lower()


# ---------------------------------------------------------------------------------------------------------
# Kinds of translations


def setting(ours: str, convert: Callable[[str, Any], Any]) -> Translate:
    """One of theirs is one of ours, after `convert`."""

    def translate(name: str, value: Any, _: Mapping[str, Any]) -> Mapping[str, Any]:
        return {ours: convert(name, value)}

    return translate


def _renamed(ours: str, parse: Callable[[str, Any], Any] = as_given) -> Other:
    """The same value under another name."""
    return Other(f"use {ours}", setting(ours, parse))


def _seconds(ours: str, *, zero: float = 0.0) -> Other:
    """Milliseconds there, seconds here; `zero` is what their 0 means."""

    def convert(name: str, value: Any) -> Any:
        return number(name, value) / 1000 or zero

    return Other(f"use {ours} (seconds)", setting(ours, convert))


def _times(factor: int, ours: str, unit: str) -> Other:
    """A number in a smaller unit than theirs."""

    def convert(name: str, value: Any) -> Any:
        return number(name, value) * factor

    return Other(f"use {ours} ({unit})", setting(ours, convert))


def _only(*same: Any, instead: str, parse: Callable[[str, Any], Any] = text) -> Other:
    """Values that say what happens here anyway need no setting; any other is refused."""

    def translate(name: str, value: Any, _: Mapping[str, Any]) -> Mapping[str, Any]:
        if parse(name, value) not in same:
            raise ValueError(f"{name}={value!r} is not possible here: {instead}")
        return {}

    return Other(instead, translate)


def _all(names: str, instead: str) -> dict[str, Other]:
    """Settings that have no counterpart, for one reason."""
    return dict.fromkeys(map(plain, names.split()), Other(instead))


# ---------------------------------------------------------------------------------------------------------
# Translations of single settings


def _linger(name: str, value: Any, _: Mapping[str, Any]) -> Mapping[str, Any]:
    # Our interval of 0 is none at all; theirs is no waiting.
    interval = number(name, value) / 1000
    return {"delivery_interval": interval} if interval else {"delivery_threshold": 1}


def _retries(name: str, value: Any) -> int:
    retries = number(name, value)
    return -1 if retries >= 2**31 - 1 else retries


def or_never(name: str, value: Any) -> float:
    """Milliseconds, of which 0 and less switch something off."""
    milliseconds = number(name, value)
    return milliseconds if milliseconds > 0 else math.inf


def or_system(name: str, value: Any) -> int | None:
    """A size, which 0 (librdkafka) and -1 (Java) leave to the operating system."""
    size = number(name, value)
    return size if size > 0 else None


def codec(name: str, value: Any) -> str | None:
    given = text(name, value).lower()
    return None if given in ("none", "inherit") else given


def _level_of(codec: str, default: int | None = None) -> Other:
    """Java has a level for each codec, and one of them counts. `default` is what stands for no level."""

    def translate(name: str, value: Any, given: Mapping[str, Any]) -> Mapping[str, Any]:
        level = number(name, value)
        chosen = given.get("compression_type", given.get("compression_codec"))
        return {} if chosen != codec or level == default else {"compression_level": level}

    return Other("use compression_level", translate)


def _keepalive(name: str, value: Any, _: Mapping[str, Any]) -> Mapping[str, Any]:
    if not flag(name, value):
        return {}
    options = [(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1), (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)]
    return {"socket_options": options}


def _check_hostname(name: str, value: Any) -> bool:
    # Java switches the check off by the empty string, librdkafka by "none".
    if value not in ("https", "none", ""):
        raise ValueError(f"{name} must be 'https' or 'none', got {value!r}")
    return bool(value == "https")


def _store(kind: str, ours: str) -> Other:
    """Java's key store or trust store, which may be a PEM file."""
    instead = f"use {ours}, which takes PEM (of a Java or PKCS#12 store, `openssl pkcs12 -in FILE` makes PEM)"

    def translate(name: str, value: Any, given: Mapping[str, Any]) -> Mapping[str, Any]:
        if str(given.get(f"ssl_{kind}_type")).upper() != "PEM":
            raise ValueError(f"{name} has no meaning here: {instead}")
        return {ours: text(name, value)}

    return Other(instead, translate)


_LOGIN_MODULE = re.compile(r"\s*[\w.$]*\.(\w+)LoginModule\s+required\b(.*?);?\s*", re.DOTALL)
_LOGIN_OPTION = re.compile(
    r"""\b(username|password)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|'((?:[^'\\]|\\.)*)'|([^\s;]+))"""
)


def _jaas(name: str, value: Any, _: Mapping[str, Any]) -> Mapping[str, Any]:
    """Java's way to write user name and password; it may hold secrets, so it is never shown."""
    module = _LOGIN_MODULE.fullmatch(value) if isinstance(value, str) else None
    if module is None or module[1] not in ("Plain", "Scram", "IAM"):
        raise ValueError(f"{name} must be for PlainLoginModule, ScramLoginModule or IAMLoginModule")
    if module[1] == "IAM":  # finds its credentials as botocore does
        return {}
    found = {
        key: re.sub(r"\\(.)", r"\1", double or single or bare)
        for key, double, single, bare in _LOGIN_OPTION.findall(module[2])
    }
    if len(found) < 2:
        raise ValueError(f"{name} must give a username and a password")
    return {"sasl_plain_username": found["username"], "sasl_plain_password": found["password"]}


def _callback_handler(name: str, value: Any, _: Mapping[str, Any]) -> Mapping[str, Any]:
    if value != "software.amazon.msk.auth.iam.IAMClientCallbackHandler":
        raise ValueError(f"{name} has no meaning here: {_TOKENS}")
    return {}


def _scram(name: str, value: Any) -> str:
    mechanisms = {"sha256": "SCRAM-SHA-256", "sha512": "SCRAM-SHA-512"}
    if value not in mechanisms:
        raise ValueError(f"{name} must be 'sha256' or 'sha512', got {value!r}")
    return mechanisms[value]


# ---------------------------------------------------------------------------------------------------------
# Reasons

_C = "it belongs to librdkafka's C interface"
_JAVA_TLS = "it belongs to Java's TLS; what OpenSSL can do is set on an ssl_context of your own"
_PEM = "write the certificate or key to a file, or set it on an ssl_context of your own"
_TOKENS = "use sasl_oauth_token_provider, an object whose method token() returns a token"
_KERBEROS = "get a ticket with kinit before the program starts"
_NEGOTIATED = "the version of every request is negotiated with each broker"
_MEASURED = "use producer.statistics() and instruments"
_TOLD = "use `await send_and_wait`, on_undelivered, or an Instrument's hook `settled`"
_LOGGED = "use the levels of the logger 'trio_kprod', or give another logger"
_NO_TRANSACTIONS = "transactions are not supported"
_PACED = "metadata_max_age_ms and lost connections decide when the producer asks for metadata"
_PIPELINED = "order and idempotence decide how many are sent at once"
_BYTES = "a batch is bounded by batch_size (bytes)"
_FIXED_BACKOFF = "the pause doubles up to 1 second"
_CREDENTIALS = "botocore finds them, for instance in AWS_ACCESS_KEY_ID and AWS_DEFAULT_REGION"
_CONSUMER = "it is for consumers"
_ASKED_AGAIN = "bootstrap_servers are always asked again beside the brokers that are known"
_DELIVERY_INTERVAL = "use delivery_interval (seconds) and delivery_threshold (messages)"

# ---------------------------------------------------------------------------------------------------------
# The table

#: Every other client's setting by its `plain` name.
OTHERS: Mapping[str, Other] = {
    # Connecting
    "metadata_broker_list": _renamed("bootstrap_servers"),
    "seed_brokers": _renamed("bootstrap_servers"),
    "resolve_seed_brokers": _only(True, parse=flag, instead="every address of a name is tried"),
    "client_dns_lookup": _only("use_all_dns_ips", instead="every address of a name is tried"),
    "broker_address_family": _only("any", instead="every address of a name is tried"),
    "socket_timeout_ms": _renamed("request_timeout_ms", number),
    "socket_timeout": _times(1000, "request_timeout_ms", "milliseconds"),
    "ack_timeout": _times(1000, "request_timeout_ms", "milliseconds"),
    "socket_send_buffer_bytes": _renamed("send_buffer_bytes", or_system),
    "socket_receive_buffer_bytes": _renamed("receive_buffer_bytes", or_system),
    "socket_keepalive_enable": Other("use socket_options", _keepalive),
    "socket_nagle_disable": _only(True, parse=flag, instead="use socket_options=[]"),
    "socks5_proxy": _renamed("proxy_url"),
    "bootstrap_timeout_ms": _seconds("connect_timeout"),
    **_all(
        "socket.connection.setup.timeout.max.ms", "socket_connection_setup_timeout_ms bounds every attempt"
    ),
    **_all("metadata.recovery.rebootstrap.trigger.ms", _ASKED_AGAIN),
    "metadata_recovery_strategy": _only("rebootstrap", "REBOOTSTRAP", instead=_ASKED_AGAIN),
    **_all("reconnect.backoff.jitter.ms", "the producer takes a random part off each pause"),
    **_all("broker.address.ttl", "a name is looked up for each connection"),
    **_all(
        "socket.blocking.max.ms socket.max.fails",
        "request_timeout_ms ends the connection",
    ),
    "api_version_request": _only(True, parse=flag, instead=_NEGOTIATED),
    **_all(
        "api.version api.version.request.timeout.ms api.version.fallback.ms broker.version.fallback "
        "api_version_auto_timeout_ms",
        _NEGOTIATED,
    ),
    **_all("selector loop", "trio does the input and output"),
    **_all("kafka_client", "the client is this package's own"),
    **_all("client.rack", "a producer sends to leaders, wherever they are"),
    # Metadata
    "topic_metadata_refresh_interval_ms": Other(
        "use metadata_max_age_ms (milliseconds)", setting("metadata_max_age_ms", or_never)
    ),
    "topic_metadata_propagation_max_ms": _seconds("topic_timeout"),
    **_all(
        "topic.metadata.refresh.fast.interval.ms topic.metadata.refresh.fast.cnt "
        "topic.metadata.refresh.sparse metadata.max.idle.ms metadata.request.timeout.ms",
        _PACED,
    ),
    **_all("topic.blacklist", "the producer asks only for topics to which it sends"),
    # When messages leave, and how many may wait
    "linger_ms": Other(_DELIVERY_INTERVAL, _linger),
    "queue_buffering_max_ms": Other(_DELIVERY_INTERVAL, _linger),
    "queue_buffering_max_messages": _renamed("max_buffer_size", number),
    "queue_buffering_max_kbytes": _times(1024, "max_buffer_bytes", "bytes"),
    "buffer_memory": _renamed("max_buffer_bytes", number),
    "max_buffer_bytesize": _renamed("max_buffer_bytes", number),
    "message_max_bytes": _renamed("max_request_size", number),
    "max_batch_size": _renamed("batch_size", number),
    **_all("batch.num.messages", _BYTES),
    **_all(
        "max.block.ms",
        "`await send` waits for room and can be cancelled, send_nowait never waits, and connect_timeout "
        "(seconds) bounds opening",
    ),
    **_all("queue.buffering.backpressure.threshold", "a full queue pushes back: see max_queue_size"),
    **_all("message.copy.max.bytes", _C),
    # Delivery
    "required_acks": _renamed("acks"),
    "request_required_acks": _renamed("acks"),
    "message_timeout_ms": _seconds("delivery_timeout", zero=math.inf),
    "delivery_timeout_ms": _seconds("delivery_timeout", zero=math.inf),
    "message_send_max_retries": Other("use max_retries (-1: no limit)", setting("max_retries", _retries)),
    "retries": Other("use max_retries (-1: no limit)", setting("max_retries", _retries)),
    "retry_backoff_ms": _seconds("retry_backoff"),
    "send_backoff_ms": _seconds("retry_backoff"),
    "retry_backoff_max_ms": _only(1000, parse=number, instead=_FIXED_BACKOFF),
    "enable_idempotence": _only(
        True, parse=flag, instead="it follows from acks: on with 'all', off with 0 and 1"
    ),
    "idempotent": _only(True, parse=flag, instead="it follows from acks: on with 'all', off with 0 and 1"),
    **_all("max.in.flight.requests.per.connection max.in.flight", _PIPELINED),
    "queuing_strategy": _only("fifo", instead="the messages of a partition always keep their order"),
    **_all(
        "enable.gapless.guarantee",
        "what is not delivered is reported, and the next messages are sent",
    ),
    **_all("msg_order_cmp", "the messages of a partition always keep their order"),
    **_all(
        "transactional.id transaction.timeout.ms transaction.two.phase.commit.enable transactional "
        "transactional_timeout",
        _NO_TRANSACTIONS,
    ),
    # Who is told
    **_all("dr_cb dr_msg_cb on_delivery delivery.report.only.error produce.offset.report", _TOLD),
    **_all("error_cb", "opening, flush and the end of the block raise errors; lost connections are logged"),
    **_all("throttle_cb", "use an Instrument's hook `throttled`"),
    **_all("interceptors interceptor.classes plugin.library.paths", "use instruments"),
    **_all(
        "statistics.interval.ms stats_cb metric.reporters metrics.num.samples metrics.sample.window.ms "
        "metrics.recording.level metrics_enabled",
        _MEASURED,
    ),
    "enable_metrics_push": _only(False, parse=flag, instead=_MEASURED),
    **_all("debug log_cb log_level log.queue log.thread.name log.connection.close", _LOGGED),
    **_all(
        "enabled_events background_event_cb socket_cb connect_cb closesocket_cb open_cb resolve_cb opaque "
        "default_topic_conf internal.termination.signal enable.random.seed builtin.features",
        _C,
    ),
    # Partitions
    **_all(
        "partitioner_cb partitioner.class",
        "by default keys go where Java sends them; give a function as partitioner",
    ),
    "partitioner_ignore_keys": _only(False, parse=flag, instead="send without key, or give a partitioner"),
    "partitioner_adaptive_partitioning_enable": _only(
        True, parse=flag, instead="messages without a key go to the partition that has the least to do"
    ),
    "partitioner_availability_timeout_ms": _only(
        0, parse=number, instead="messages without a key go to the partition that has the least to do"
    ),
    **_all("sticky.partitioning.linger.ms", "messages without a key go to another partition with each batch"),
    # Compression
    "compression_codec": _renamed("compression_type", codec),
    "compression_gzip_level": _level_of("gzip", default=-1),
    "compression_lz4_level": _level_of("lz4"),
    "compression_zstd_level": _level_of("zstd"),
    **_all("compression_threshold", "a batch is compressed if that makes it smaller"),
    # TLS
    "ssl_ca_location": _renamed("ssl_cafile"),
    "ssl_certificate_location": _renamed("ssl_certfile"),
    "ssl_key_location": _renamed("ssl_keyfile"),
    "ssl_key_password": _renamed("ssl_password"),
    "ssl_crl_location": _renamed("ssl_crlfile"),
    "ssl_cipher_suites": _renamed("ssl_ciphers"),
    "ssl_endpoint_identification_algorithm": _renamed("ssl_check_hostname", _check_hostname),
    "enable_ssl_certificate_verification": _only(
        True, parse=flag, instead="give an ssl_context of your own that does not verify"
    ),
    "ssl_truststore_location": _store("truststore", "ssl_cafile"),
    "ssl_keystore_location": _store("keystore", "ssl_certfile"),
    "ssl_truststore_type": _only("PEM", instead="use ssl_cafile, which takes PEM"),
    "ssl_keystore_type": _only("PEM", instead="use ssl_certfile, which takes PEM"),
    **_all("ssl.truststore.password ssl.keystore.password", "use ssl_password, of the key in a PEM file"),
    "ssl_ca_cert_file_path": _renamed("ssl_cafile"),
    "ssl_client_cert_key_password": _renamed("ssl_password"),
    "ssl_verify_hostname": _renamed("ssl_check_hostname", flag),
    "ssl_ca_certs_from_system": _only(True, parse=flag, instead="use ssl_cafile"),
    **_all(
        "ssl.ca.pem ssl.certificate.pem ssl.key.pem ssl_ca ssl_certificate ssl_key ssl.keystore.key "
        "ssl.keystore.certificate.chain ssl.truststore.certificates ssl_ca_cert ssl_client_cert "
        "ssl_client_cert_key ssl_client_cert_chain",
        _PEM,
    ),
    **_all("ssl.ca.certificate.stores", "without ssl_cafile the system's certificates are used"),
    **_all(
        "ssl.curves.list ssl.sigalgs.list ssl.providers ssl.engine.location ssl.engine.id "
        "ssl_engine_callback_data ssl.certificate.verify_cb",
        "set it on an ssl_context of your own, as far as Python's ssl can",
    ),
    **_all(
        "ssl.enabled.protocols ssl.protocol",
        "set minimum_version and maximum_version on an ssl_context of your own",
    ),
    **_all(
        "ssl.provider ssl.engine.factory.class ssl.keymanager.algorithm ssl.trustmanager.algorithm "
        "ssl.secure.random.implementation security.providers",
        _JAVA_TLS,
    ),
    # SASL
    "sasl_mechanisms": _renamed("sasl_mechanism"),
    "sasl_username": _renamed("sasl_plain_username"),
    "sasl_password": _renamed("sasl_plain_password"),
    "sasl_scram_username": _renamed("sasl_plain_username"),
    "sasl_scram_password": _renamed("sasl_plain_password"),
    "sasl_scram_mechanism": _renamed("sasl_mechanism", _scram),
    "sasl_jaas_config": Other("use sasl_plain_username and sasl_plain_password", _jaas),
    "sasl_client_callback_handler_class": Other(_TOKENS, _callback_handler),
    **_all("sasl_plain_authzid", "a user can act for itself only"),
    **_all("sasl_over_ssl", "use security_protocol: 'SASL_SSL' or 'SASL_PLAINTEXT'"),
    **_all(
        "sasl_aws_msk_iam_access_key_id sasl_aws_msk_iam_secret_key_id sasl_aws_msk_iam_aws_region "
        "sasl_aws_msk_iam_session_token",
        _CREDENTIALS,
    ),
    **_all(
        "sasl_gssapi_principal sasl_gssapi_keytab sasl.kerberos.principal sasl.kerberos.keytab "
        "sasl.kerberos.kinit.cmd sasl.kerberos.min.time.before.relogin sasl.kerberos.ticket.renew.jitter "
        "sasl.kerberos.ticket.renew.window.factor",
        _KERBEROS,
    ),
    **_all(
        "oauth_cb oauthbearer_token_refresh_cb enable.sasl.oauthbearer.unsecure.jwt "
        "sasl.login.callback.handler.class sasl.login.class sasl.login.connect.timeout.ms "
        "sasl.login.read.timeout.ms sasl.login.refresh.buffer.seconds sasl.login.refresh.min.period.seconds "
        "sasl.login.refresh.window.factor sasl.login.refresh.window.jitter sasl.login.retry.backoff.max.ms "
        "sasl.login.retry.backoff.ms https.ca.location https.ca.pem",
        _TOKENS,
    ),
    # Schema Registry, and consumers, of which a shared file of settings may speak
    **_all(
        "group.id group.instance.id partition.assignment.strategy session.timeout.ms heartbeat.interval.ms "
        "max.poll.interval.ms max.poll.records enable.auto.commit auto.commit.interval.ms "
        "enable.auto.offset.store auto.offset.reset queued.min.messages queued.max.messages.kbytes "
        "fetch.wait.max.ms fetch.max.wait.ms fetch.min.bytes fetch.max.bytes max.partition.fetch.bytes "
        "isolation.level enable.partition.eof check.crcs rebalance_cb key.deserializer value.deserializer",
        _CONSUMER,
    ),
    **_all(
        "schema.registry.url basic.auth.credentials.source basic.auth.user.info auto.register.schemas "
        "use.latest.version",
        "it is for serializers that ask a Schema Registry",
    ),
}

#: The same for whole families of settings.
_FAMILIES = {"sasl_oauthbearer_": Other(_TOKENS)}


def other(name: str) -> Other | None:
    """What there is to say of another client's setting; None if no other client is known to have it."""
    name = plain(name)
    family = next((row for start, row in _FAMILIES.items() if name.startswith(start)), None)
    return OTHERS.get(name, family)
