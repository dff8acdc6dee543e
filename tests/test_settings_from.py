"""`settings_from`: the settings of other clients and of environments as arguments of `open_producer`."""

from __future__ import annotations

import math
import os
import socket
import types
from typing import Any

import kafka
import pytest

import trio_kprod
from tests import other_clients
from trio_kprod import settings_from
from trio_kprod._settings._config import NAMED, ClientConfig, ProducerSettings
from trio_kprod._settings._other_clients import OTHERS
from trio_kprod.testing import open_broker


def translated(**given: Any) -> dict[str, Any]:
    """What comes of settings whose names may be written with two underscores for a dot."""
    found = dict(settings_from({name.replace("__", "."): value for name, value in given.items()}))
    found.pop("delivery_interval" if found.get("delivery_interval") == 0.005 else "", None)
    return found


# ---------------------------------------------------------------------------------------------------------
# Whole sets of settings


def test_librdkafka() -> None:
    """As confluent-kafka's documentation has them, with numbers or text."""
    assert settings_from(
        {
            "bootstrap.servers": "a:9092,b:9092",
            "security.protocol": "sasl_ssl",
            "sasl.mechanisms": "PLAIN",
            "sasl.username": "key",
            "sasl.password": "secret",
            "ssl.ca.location": "/etc/ca.pem",
            "ssl.endpoint.identification.algorithm": "https",
            "acks": "all",
            "enable.idempotence": True,
            "linger.ms": "100",
            "compression.codec": "zstd",
            "compression.level": 7,
            "message.timeout.ms": 120_000,
            "queue.buffering.max.messages": "50000",
            "queue.buffering.max.kbytes": 65_536,
            "message.send.max.retries": 2_147_483_647,
            "socket.keepalive.enable": "true",
            "topic.metadata.refresh.interval.ms": -1,
            "partitioner": "murmur2_random",
        }
    ) == {
        "bootstrap_servers": "a:9092,b:9092",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "key",
        "sasl_plain_password": "secret",
        "ssl_cafile": "/etc/ca.pem",
        "ssl_check_hostname": True,
        "acks": "all",
        "delivery_interval": 0.1,
        "compression_type": "zstd",
        "compression_level": 7,
        "delivery_timeout": 120.0,
        "max_buffer_size": 50_000,
        "max_buffer_bytes": 64 * 1024 * 1024,
        "max_retries": -1,
        "socket_options": [
            (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1),
            (socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1),
        ],
        "metadata_max_age_ms": math.inf,
    }


JAAS = (
    "org.apache.kafka.common.security.plain.PlainLoginModule required "
    """username="key" password='it\\'s "secret"; \\\\';"""
)


def test_java() -> None:
    """As in a properties file of Confluent Cloud: all values are text."""
    assert settings_from(
        {
            "bootstrap.servers": "kafka:9092",
            "security.protocol": "SASL_SSL",
            "sasl.jaas.config": JAAS,
            "sasl.mechanism": "PLAIN",
            "client.dns.lookup": "use_all_dns_ips",
            "acks": "-1",
            "linger.ms": "0",
            "retries": "5",
            "retry.backoff.ms": "250",
            "delivery.timeout.ms": "0",
            "request.timeout.ms": "20000",
            "connections.max.idle.ms": "-1",
            "send.buffer.bytes": "-1",
            "receive.buffer.bytes": "65536",
            "compression.type": "gzip",
            "compression.gzip.level": "4",
            "compression.zstd.level": "3",
            "ssl.truststore.type": "PEM",
            "ssl.truststore.location": "/etc/ca.pem",
            "ssl.endpoint.identification.algorithm": "",
        }
    ) == {
        "bootstrap_servers": "kafka:9092",
        "security_protocol": "SASL_SSL",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": "key",
        "sasl_plain_password": 'it\'s "secret"; \\',
        "acks": -1,
        "delivery_threshold": 1,
        "max_retries": 5,
        "retry_backoff": 0.25,
        "delivery_timeout": math.inf,
        "request_timeout_ms": 20_000,
        "connections_max_idle_ms": math.inf,
        "send_buffer_bytes": None,
        "receive_buffer_bytes": 65_536,
        "compression_type": "gzip",
        "compression_level": 4,
        "ssl_cafile": "/etc/ca.pem",
        "ssl_check_hostname": False,
    }


@pytest.mark.parametrize("end", [";", " ;\n", ""])
def test_logins_of_java(end: str) -> None:
    """Without quotes, with more options, on several lines."""
    config = "a.b.ScramLoginModule required\n  tokenauth=true password=p serviceusername=x username=u" + end
    assert translated(sasl__jaas__config=config) == {"sasl_plain_username": "u", "sasl_plain_password": "p"}


def test_java_with_iam_of_amazon() -> None:
    """The four lines of Amazon's documentation need no more than two here."""
    iam = "software.amazon.msk.auth.iam"
    assert translated(
        security__protocol="SASL_SSL",
        sasl__mechanism="AWS_MSK_IAM",
        sasl__jaas__config=f"{iam}.IAMLoginModule required;",
        sasl__client__callback__handler__class=f"{iam}.IAMClientCallbackHandler",
    ) == {"security_protocol": "SASL_SSL", "sasl_mechanism": "AWS_MSK_IAM"}


def test_ruby_kafka_and_aiokafka() -> None:
    """Where their names differ from ours."""
    assert translated(
        seed_brokers=["a:1", "b:2"],
        required_acks=1,
        ack_timeout=5,
        compression_codec="snappy",
        max_buffer_bytesize=10_000_000,
        sasl_scram_username="ada",
        sasl_scram_password="secret",
        sasl_scram_mechanism="sha512",
        ssl_ca_cert_file_path="/ca.pem",
        ssl_verify_hostname=False,
        max_batch_size=16_384,
        retry_backoff_ms=100,
        delivery_interval=10,
    ) == {
        "bootstrap_servers": ["a:1", "b:2"],
        "acks": 1,
        "request_timeout_ms": 5000,
        "compression_type": "snappy",
        "max_buffer_bytes": 10_000_000,
        "sasl_plain_username": "ada",
        "sasl_plain_password": "secret",
        "sasl_mechanism": "SCRAM-SHA-512",
        "ssl_cafile": "/ca.pem",
        "ssl_check_hostname": False,
        "batch_size": 16_384,
        "retry_backoff": 0.1,
        "delivery_interval": 10,
    }


def test_an_environment() -> None:
    """A prefix, capitals, our own names as well as others', and what else is there."""
    environment = {
        "PATH": "/bin",
        "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
        "KAFKA_DELIVERY_INTERVAL": "1.5",
        "KAFKA_DELIVERY_TIMEOUT": "inf",
        "KAFKA_SASL_USERNAME": "",
        "KAFKA_ALLOW_AUTO_CREATE_TOPICS": "False",
        "KAFKA_MAX_QUEUE_SIZE": "2000",
        "KAFKA_REQUEST_TIMEOUT_MS": "1e4",
        # what Kubernetes sets for a service of the name "kafka"
        "KAFKA_SERVICE_HOST": "10.0.0.1",
        "KAFKA_SERVICE_PORT": "9092",
        "KAFKA_SERVICE_PORT_CLIENTS": "9092",
        "KAFKA_PORT": "tcp://10.0.0.1:9092",
        "KAFKA_PORT_9092_TCP": "tcp://10.0.0.1:9092",
        "KAFKA_PORT_9092_TCP_ADDR": "10.0.0.1",
    }
    assert settings_from(environment, prefix="KAFKA_", compression_type="zstd", max_queue_size=5) == {
        "bootstrap_servers": "kafka:9092",
        "delivery_interval": 1.5,
        "delivery_timeout": math.inf,
        "allow_auto_create_topics": False,
        "max_queue_size": 2000,
        "request_timeout_ms": 10_000.0,
        "compression_type": "zstd",
    }


def test_a_whole_environment_is_no_set_of_settings() -> None:
    """One line instead of an error for each variable."""
    with pytest.raises(
        ValueError, match=r"^settings_from\(os.environ\) needs a prefix, such as prefix='KAFKA_'$"
    ):
        settings_from(os.environ)


# ---------------------------------------------------------------------------------------------------------
# When messages leave


def test_messages_leave_by_themselves_as_with_other_clients() -> None:
    """5 ms, where nobody says anything else."""
    assert settings_from({}) == {"delivery_interval": 0.005}
    assert settings_from({}, delivery_threshold=500) == {"delivery_threshold": 500}
    assert settings_from({"delivery.threshold": "10"}) == {"delivery_threshold": 10}
    assert settings_from({"queue.buffering.max.ms": 20}) == {"delivery_interval": 0.02}


# ---------------------------------------------------------------------------------------------------------
# Each name

CLIENTS = {
    "librdkafka": other_clients.LIBRDKAFKA.split(),
    "confluent-kafka": other_clients.CONFLUENT_KAFKA.split(),
    "java": other_clients.JAVA.split(),
    "kafka-python": list(kafka.KafkaProducer.DEFAULT_CONFIG),
    "aiokafka": other_clients.AIOKAFKA.split(),
    "ruby-kafka": other_clients.RUBY_KAFKA.split(),
}


@pytest.mark.parametrize(
    ("client", "name"), [(one, name) for one, names in CLIENTS.items() for name in names]
)
def test_every_setting_of_others_is_translated_or_refused_with_a_reason(client: str, name: str) -> None:
    """None of them is unknown, whatever its value."""
    for value in ("1", "true", "none"):
        try:
            found = settings_from({name: value})
        except (TypeError, ValueError) as error:
            reason = str(error)
            assert name in reason
            assert "unknown setting" not in reason
            assert " must be " in reason or len(reason.partition(": ")[2]) > 10 or "must be for" in reason
        else:
            assert found.keys() <= {"bootstrap_servers"} | ProducerSettings.__optional_keys__


@pytest.mark.parametrize("name", sorted(ProducerSettings.__optional_keys__))
def test_our_own_names_are_known(name: str) -> None:
    """With dots, too; what is given as it should be comes out as it was."""
    values: dict[str, Any] = {
        "acks": 1,
        "allow_auto_create_topics": False,
        "bootstrap_servers": ["a:1"],
        "compression_type": "zstd",
        "partitioner": lambda *_: 0,
        "sasl_mechanism": "PLAIN",
        "security_protocol": "SSL",
        "ssl_check_hostname": False,
    }
    value = values.get(name, 7)
    assert settings_from({name.replace("_", "."): value})[name] == value  # type: ignore[literal-required]


def test_every_argument_of_open_producer_is_known() -> None:
    """Those that are the program's own objects are given to it, not translated."""
    objects = {"key_serializer", "value_serializer", "instruments", "on_undelivered", "logger"}
    ours = {"bootstrap_servers", *NAMED, *ClientConfig.__optional_keys__}
    assert ours - objects == ProducerSettings.__optional_keys__
    for name in objects:
        with pytest.raises(TypeError, match=f"^{name} cannot be translated: give {name} to open_producer"):
            settings_from({name: print})


# ---------------------------------------------------------------------------------------------------------
# What is refused


def test_all_that_is_wrong_is_told_at_once() -> None:
    """With the names as they were written."""
    with pytest.raises(trio_kprod.SettingsError) as caught:
        settings_from(
            {
                "APP_TRANSACTIONAL_ID": "x",
                "APP_LINGER_MS": "soon",
                "APP_GROUP_ID": "g",
                "APP_DELIVERY_TIMEUOT": 1,
                "APP_ON_DELIVERY": print,
                "APP_ENABLE_IDEMPOTENCE": "false",
                "APP_ZZZ": 0,
            },
            prefix="APP_",
        )
    assert str(caught.value).splitlines() == [
        "7 settings are wrong:",
        "  APP_TRANSACTIONAL_ID has no meaning here: transactions are not supported",
        "  APP_LINGER_MS must be a number, got 'soon'",
        "  APP_GROUP_ID has no meaning here: it is for consumers",
        "  unknown setting 'APP_DELIVERY_TIMEUOT': did you mean 'delivery_timeout'?",
        "  APP_ON_DELIVERY has no meaning here: " + OTHERS["on_delivery"].instead,
        "  APP_ENABLE_IDEMPOTENCE='false' is not possible here: " + OTHERS["enable_idempotence"].instead,
        "  unknown setting 'APP_ZZZ'",
    ]


@pytest.mark.parametrize(
    ("given", "error"),
    [
        ({"linger.ms": [1]}, r"^linger.ms must be a number, got \[1\] \(list\)"),
        ({"linger.ms": True}, r"^linger.ms must be a number, got True \(bool\)"),
        ({"allow.auto.create.topics": "yes"}, r"^allow.auto.create.topics must be true or false, got 'yes'$"),
        ({"allow.auto.create.topics": 2}, r"^allow.auto.create.topics must be true or false, got 2 \(int\)"),
        ({"compression.type": 3}, r"^compression.type must be a string, got 3 \(int\)"),
        (
            {"linger.ms": 1, "queue.buffering.max.ms": 2},
            r"both set delivery_interval: leave one out$",
        ),
        (
            {"partitioner": "consistent_random"},
            r"^partitioner='consistent_random' is not possible",
        ),
        (
            {"ssl.truststore.location": "a.jks"},
            r"^ssl.truststore.location has no .*use ssl_cafile",
        ),
        ({"ssl.keystore.location": "a.p12"}, r"^ssl.keystore.location has no .*use ssl_certfile"),
        ({"ssl.endpoint.identification.algorithm": "x"}, r" must be 'https' or 'none', got 'x'$"),
        ({"enable.ssl.certificate.verification": "false"}, r"is not possible here: give an ssl_context"),
        (
            {"sasl.client.callback.handler.class": "Mine"},
            r"has no meaning here: use sasl_oauth_token_provider",
        ),
        ({"sasl_scram_mechanism": "md5"}, r"^sasl_scram_mechanism must be 'sha256' or 'sha512', got 'md5'$"),
        ({"retry.backoff.max.ms": 5000}, r"is not possible here: the pause doubles up to 1 second$"),
    ],
)
def test_what_cannot_be_translated(given: dict[str, Any], error: str) -> None:
    """A value without counterpart, a value of the wrong kind, and two names for one setting."""
    with pytest.raises((TypeError, ValueError), match=error):
        settings_from(given)


@pytest.mark.parametrize(
    "given",
    [
        {"socket.keepalive.enable": False},
        {"compression.level": -1},
        {"compression.type": "gzip", "compression.gzip.level": -1},
        {"retry.backoff.max.ms": "1000"},
        {"metadata.recovery.strategy": "rebootstrap"},
        {"enable.metrics.push": "false"},
        {"partitioner.ignore.keys": "0"},
        {"sasl.username": None, "sasl.password": ""},
    ],
)
def test_what_needs_no_setting(given: dict[str, Any]) -> None:
    """What happens here anyway, and what is not set."""
    assert set(translated(**{name.replace(".", "__"): one for name, one in given.items()})) <= {
        "compression_type"
    }


@pytest.mark.parametrize(
    "config",
    [
        "s3cret",
        b"s3cret",
        'a.b.OAuthBearerLoginModule required password="s3cret";',
        'a.b.ScramLoginModule required password="s3cret";',
    ],
)
def test_secrets_are_not_shown(config: Any) -> None:
    """A login that cannot be read may still have a password in it."""
    with pytest.raises(ValueError, match=r"^sasl.jaas.config (must be for|must give)") as caught:
        settings_from({"sasl.jaas.config": config})
    assert "s3cret" not in str(caught.value)


def test_the_mapping_is_not_changed() -> None:
    """Any mapping will do."""
    given = types.MappingProxyType({"acks": "1", "bootstrap.servers": "a:1"})
    assert settings_from(given)["acks"] == 1


async def test_a_producer_from_another_clients_settings() -> None:
    """It delivers by itself, as that client would."""
    async with open_broker() as broker:
        settings = settings_from({"bootstrap.servers": broker.bootstrap_servers, "acks": "all"})
        async with trio_kprod.open_producer(**settings) as producer:
            producer.send_nowait("t", b"v")
            await broker.records_arrived("t")
