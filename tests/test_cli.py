"""The command line, as users type it: what it sends, what it says, and its exit codes."""

from __future__ import annotations

import json
import os
import queue
import signal
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import trustme
from click.testing import CliRunner, Result
from tqdm import tqdm

import trio_kprod
from trio_kprod._cli import _send, main
from trio_kprod._cli._lines import Format, Parsed, as_line
from trio_kprod.testing import Broker, Record, open_broker

#: Seconds until a program that has not ended is an error.
PATIENCE = 60.0

NOBODY = "127.0.0.1:1"


@pytest.fixture
def broker(monkeypatch: pytest.MonkeyPatch) -> Iterator[Broker]:
    monkeypatch.delenv("KAFKA_BOOTSTRAP_SERVERS", raising=False)
    with open_broker(topics={"t": 1}) as running:
        yield running


def type_(*arguments: str, given: str | bytes = b"") -> Result:
    return CliRunner().invoke(main, arguments, input=given)


def send(broker: Broker, *arguments: str, given: str | bytes = b"") -> Result:
    return type_("send", "t", "-b", broker.bootstrap_servers, *arguments, given=given)


def values(broker: Broker, topic: str = "t") -> list[bytes | None]:
    return [record.value for record in broker.records(topic)]


# ---------------------------------------------------------------------------------------------------------
# Lines


@pytest.mark.parametrize(
    ("form", "line", "parsed"),
    [
        (Format(), b"text", Parsed(b"text")),
        (Format(), b"", Parsed(b"")),
        (Format(key_separator=":"), b"k:v:w", Parsed(b"v:w", b"k")),
        (Format(headers=(("h", b"1"),), partition=3), b"v", Parsed(b"v", None, [("h", b"1")], 3)),
        (Format(as_json=True), b'{"value": "v"}', Parsed(b"v")),
        (Format(as_json=True), b'{"value": null, "key": "k"}', Parsed(None, b"k")),
        (
            Format(as_json=True),
            '{"value": {"ä": [1]}, "key": 5}'.encode(),
            Parsed('{"ä": [1]}'.encode(), b"5"),
        ),
        (
            Format(as_json=True, headers=(("h", b"1"),), partition=3),
            b'{"value": "v", "headers": {"a": "1", "b": null}, "partition": 1, "timestamp_ms": 7}',
            Parsed(b"v", None, [("a", b"1"), ("b", None)], 1, 7),
        ),
        (
            Format(as_json=True, base64=True),
            b'{"value": "/w==", "key": "AA==", "headers": [["a", "AA=="]]}',
            Parsed(b"\xff", b"\0", [("a", b"\0")]),
        ),
    ],
)
def test_lines(form: Format, line: bytes, parsed: Parsed) -> None:
    assert form.parse(line) == parsed


@pytest.mark.parametrize(
    ("form", "line", "text"),
    [
        (Format(key_separator=":"), b"kv", "no ':' between key and value"),
        (Format(as_json=True), b"v", "not JSON: "),
        (Format(as_json=True), b"[1]", "not a JSON object"),
        (Format(as_json=True), b"[" * 200_000, "nested too deeply"),
        (Format(as_json=True), b'{"\\u001b[2Jx": 1}', r"unknown field: \\x1b\[2Jx; there are"),
        (Format(as_json=True), b'{"valeu": 1}', "unknown field: valeu; there are headers, key, "),
        (
            Format(as_json=True),
            b'{"value": "v", "headers": 5}',
            "headers must be an object, or a list of pairs",
        ),
        (Format(as_json=True, base64=True), b'{"value": "?"}', "value is not base64"),
        (Format(as_json=True, base64=True), b'{"key": 5}', "key is no text"),
    ],
)
def test_bad_lines(form: Format, line: bytes, text: str) -> None:
    with pytest.raises(ValueError, match="^" + text.replace("?", r"\?")):
        form.parse(line)


@pytest.mark.parametrize(
    "message",
    [
        trio_kprod.Message("t", b"\xff", b"k", (("h", b"1"), ("n", None)), 2, 5, 100),
        trio_kprod.Message("t", None, b"k", (), None, 5, 100),
        trio_kprod.Message("t", b"v", None, (), None, 5, 100),
    ],
)
def test_a_message_comes_back_from_its_line(message: trio_kprod.Message) -> None:
    parsed = Format(as_json=True, base64=True).parse(as_line(message).encode())
    assert parsed == Parsed(
        message.value, message.key, list(message.headers) or None, message.partition, message.timestamp_ms
    )


# ---------------------------------------------------------------------------------------------------------
# send


def test_lines_of_a_pipe(broker: Broker) -> None:
    """With every kind of line end; the last line needs none."""
    result = send(broker, given=b"one\ntwo\r\n\nfour")
    assert result.exit_code == 0
    assert values(broker) == [b"one", b"two", b"", b"four"]
    assert "4 delivered to t in" in result.stderr
    assert result.stdout == ""


def test_a_file_of_any_size(broker: Broker, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"".join(b"%d\n" % number for number in range(50_000)))
    result = send(broker, "--file", str(path))
    assert result.exit_code == 0
    assert values(broker) == [b"%d" % number for number in range(50_000)]


def test_everything_a_message_can_have(broker: Broker) -> None:
    result = send(
        broker, "--json", "--header", "h=1", "--partition", "0",
        given='{"value": "v", "key": "k", "timestamp_ms": 5}\n',
    )  # fmt: skip
    assert result.exit_code == 0
    assert broker.records("t") == [Record("t", 0, 0, b"k", b"v", (("h", b"1"),), 5)]


def test_a_terminal_shows_progress(broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_send, "_is_terminal", lambda: True)
    monkeypatch.setattr(tqdm, "monitor_interval", 0)  # without a thread, which would stay
    result = send(broker, given=b"one\ntwo\n")
    assert result.exit_code == 0
    assert "2.00 msg [" in result.stderr


def test_a_bad_line_ends_it(broker: Broker) -> None:
    """What stands before it is delivered, and it is named."""
    result = send(broker, "--json", given='{"value": "1"}\nnope\n{"value": "3"}\n')
    assert result.exit_code == 1
    assert values(broker) == [b"1"]
    assert "standard input, line 2: not JSON" in result.stderr


def test_bad_lines_may_be_skipped(broker: Broker) -> None:
    """Also what the producer refuses: an empty object would be no message."""
    result = send(
        broker, "--json", "--on-bad-line", "skip", given='{"value": "1"}\nnope\n{}\n{"value": "4"}\n'
    )
    assert result.exit_code == 0
    assert values(broker) == [b"1", b"4"]
    assert "line 2: not JSON" in result.stderr
    assert "line 3: key and value must not both be None" in result.stderr
    assert "2 lines skipped" in result.stderr


@pytest.mark.parametrize("to_file", [False, True])
def test_undelivered_messages_can_be_sent_again(broker: Broker, to_file: bool, tmp_path: Path) -> None:
    """They are lines that `send --json --base64` takes."""
    rule = broker.answer("Produce", error="TOPIC_AUTHORIZATION_FAILED", times=None)
    path = tmp_path / "aside"
    result = send(broker, *(["--undelivered", str(path)] if to_file else []), given="1\n2\n")
    assert result.exit_code == 1
    assert "not delivered: TOPIC_AUTHORIZATION_FAILED (29)" in result.stderr
    assert "0 delivered to t in" in result.stderr
    assert ", 2 not delivered" in result.stderr
    rule.remove()
    again = send(broker, "--json", "--base64", given=path.read_text() if to_file else result.stdout)
    assert again.exit_code == 0
    assert values(broker) == [b"1", b"2"]


def test_what_may_have_been_written_is_told(broker: Broker) -> None:
    broker.drop_connections("append", "Produce", times=None)
    result = send(broker, "-X", "shutdown_timeout=0.5", given="1\n")
    assert result.exit_code == 1
    assert "not delivered, but may have been: not acknowledged before shutdown_timeout" in result.stderr


def test_undelivered_messages_that_cannot_be_written_are_counted(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As on a disk that is full."""
    broker.answer("Produce", error="TOPIC_AUTHORIZATION_FAILED", times=None)

    def full(_: trio_kprod.Message) -> str:
        raise OSError("No space left on device")

    monkeypatch.setattr(_send, "as_line", full)
    result = send(broker, given="1\n2\n")
    assert result.exit_code == 1
    assert ", 2 not delivered" in result.stderr


def test_no_connection() -> None:
    result = type_("send", "t", "-b", NOBODY, "-X", "connect_timeout=0.2", given="1\n")
    assert result.exit_code == 3
    assert "no broker responded within 0.2 s" in result.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["-X", "linger_m=5"], "unknown setting 'linger_m'"),
        (["-X", "acks"], "-X acks: must be name=value"),
        (["-X", "acks=7"], "acks"),
        (["--base64"], "--base64 goes with --json"),
        (["--json", "--key-separator", ":"], "--key-separator is for plain lines"),
        (["--header", "h"], "--header h: must be NAME=VALUE"),
        (["--config", "/does/not/exist"], "does not exist"),
        (["--undelivered", "/does/not/exist"], "--undelivered: [Errno 2]"),
    ],
)
def test_wrong_usage(broker: Broker, arguments: Sequence[str], text: str) -> None:
    result = send(broker, *arguments)
    assert result.exit_code == 2
    assert text in result.stderr


@pytest.mark.parametrize("on_bad_line", ["fail", "skip"])
def test_a_line_without_end_is_not_read_to_its_end(broker: Broker, on_bad_line: str) -> None:
    """Memory has a bound; what stands before it is sent."""
    limit = ("-X", "max_request_size=10000", "--on-bad-line", on_bad_line)
    result = send(broker, *limit, given=b"one\n" + b"x" * 300_000)
    assert result.exit_code == 1
    assert "standard input, line 2: longer than 80000 bytes" in result.stderr
    assert values(broker) == [b"one"]


def test_the_input_is_not_emptied(broker: Broker, tmp_path: Path) -> None:
    """Undelivered messages may not go to the file that is read, by whatever name."""
    lines, link = tmp_path / "lines", tmp_path / "link"
    lines.write_text("one\n")
    link.symlink_to(lines)
    result = send(broker, "--file", str(lines), "--undelivered", str(link))
    assert result.exit_code == 2
    assert "another file" in result.stderr
    assert lines.read_text() == "one\n"


def test_settings_come_from_options_a_file_and_the_environment(
    broker: Broker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this order."""
    file = tmp_path / "producer.properties"
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", broker.bootstrap_servers)
    assert type_("send", "t", given="1\n").exit_code == 0
    file.write_text(f"# where\nbootstrap.servers = {NOBODY}\n\nconnect_timeout = 0.2\n")
    assert type_("send", "t", "--config", str(file), given="2\n").exit_code == 3
    good = f"BOOTSTRAP_SERVERS={broker.bootstrap_servers}"
    assert type_("send", "t", "--config", str(file), "-X", good, given="3\n").exit_code == 0
    bad = f"bootstrap_servers={NOBODY}"
    servers = ("-b", broker.bootstrap_servers)
    assert type_("send", "t", "--config", str(file), "-X", bad, *servers, given="4\n").exit_code == 0
    assert values(broker) == [b"1", b"3", b"4"]
    file.write_text("acks\n")
    result = type_("send", "t", "--config", str(file))
    assert result.exit_code == 2
    assert "producer.properties: acks: must be name=value" in result.stderr


# ---------------------------------------------------------------------------------------------------------
# As a program


def start(*arguments: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "PYTHONPATH": str(Path(trio_kprod.__file__).parent.parent)}
    return subprocess.Popen(
        [sys.executable, "-m", "trio_kprod", *arguments],
        env=env, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def test_a_line_leaves_though_the_pipe_stays_open_and_ctrl_c_delivers(broker: Broker) -> None:
    """As behind ``tail -f``."""
    process = start("send", "t", "-b", broker.bootstrap_servers)
    assert process.stdin is not None
    process.stdin.write(b"one\ntwo\nthe third is not comple")
    process.stdin.flush()
    broker.wait_records("t", 2, timeout=PATIENCE)
    process.send_signal(signal.SIGINT)
    _, said = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130
    assert b"Ctrl-C: reading no more" in said
    assert b"2 delivered" in said
    assert b"Traceback" not in said
    assert values(broker) == [b"one", b"two"]


def test_a_second_ctrl_c_gives_up(broker: Broker) -> None:
    broker.silence("Produce")
    process = start("send", "t", "-b", broker.bootstrap_servers)
    assert process.stdin is not None
    assert process.stderr is not None
    process.stdin.write(b"one\n")
    process.stdin.flush()
    broker.wait_requests("Produce", timeout=PATIENCE)
    process.send_signal(signal.SIGINT)
    first = process.stderr.readline()
    assert b"Ctrl-C: reading no more" in first
    # The next press may come before the program is leaving the block, and then only counts as the first.
    line: queue.Queue[bytes] = queue.Queue()
    threading.Thread(target=lambda: line.put(process.stderr.readline()), daemon=True).start()  # type: ignore[union-attr]
    told = b""
    while not told:
        process.send_signal(signal.SIGINT)
        with suppress(queue.Empty):
            told = line.get(timeout=1)
    said = told + process.communicate(timeout=PATIENCE)[1]
    assert process.returncode == 130
    assert b"not delivered, but may have been: not acknowledged before the shutdown was interrupted" in said
    assert b"Traceback" not in said


def test_without_the_extra_it_says_what_to_install() -> None:
    code = "import sys; sys.modules['click'] = None; import trio_kprod.__main__ as m; m.main()"
    env = {**os.environ, "PYTHONPATH": str(Path(trio_kprod.__file__).parent.parent)}
    ended = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, check=False)
    assert (ended.returncode, ended.stdout) == (2, "")
    assert ended.stderr == "the command line needs click: pip install 'trio_kprod[cli]'\n"


def test_another_module_that_is_missing_is_a_bug(monkeypatch: pytest.MonkeyPatch) -> None:
    import trio_kprod.__main__ as program

    monkeypatch.setitem(sys.modules, "trio_kprod._cli", None)
    with pytest.raises(ModuleNotFoundError, match="_cli"):
        program.main()


def test_the_module_is_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    import trio_kprod.__main__ as program

    monkeypatch.setattr(sys, "argv", ["trio_kprod", "--version"])
    with pytest.raises(SystemExit) as ended:
        program.main()
    assert ended.value.code == 0


# ---------------------------------------------------------------------------------------------------------
# ping

CA = trustme.CA()


def server_context(issued: trustme.LeafCert) -> ssl.SSLContext:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    issued.configure_cert(context)
    return context


@pytest.fixture
def authority(tmp_path: Path) -> str:
    path = tmp_path / "ca.pem"
    CA.cert_pem.write_to_path(str(path))
    return str(path)


def ping(servers: str, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """The exit code, and each finding."""
    result = type_("ping", "-b", servers, "--json", *arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit)
    return result.exit_code, [json.loads(line) for line in result.stdout.splitlines()]


def steps(findings: list[dict[str, Any]]) -> list[tuple[str, bool]]:
    return [(one["step"], one["ok"]) for one in findings]


def test_everything_works(broker: Broker) -> None:
    """With the topic, and a message to it; in words."""
    result = type_("ping", "t", "-b", broker.bootstrap_servers, "--send")
    assert result.exit_code == 0
    at = broker.bootstrap_servers
    assert result.stdout.splitlines() == [
        f"✓ {at}  DNS: 127.0.0.1",
        f"✓ {at}  TCP: connected",
        f"✓ {at}  Kafka: a broker responds",
        f"✓ {at}  metadata: the cluster's brokers: {at}",
        "✓ topic 't'  topic: 1 partitions, each with a leader",
        "✓ topic 't'  send: in partition 0 at offset 0",
    ]
    assert values(broker) == [b"trio_kprod ping"]


def test_what_does_not_work_has_a_cross_and_advice() -> None:
    result = type_("ping", "-b", NOBODY)
    assert result.exit_code == 3
    _, failed, advice = result.stdout.splitlines()
    assert failed.startswith(f"✗ {NOBODY}  TCP: connecting: ")
    assert advice == "    → nothing listens there: is the broker up, and the port right?"


def test_a_name_that_nobody_knows() -> None:
    code, findings = ping("nowhere.invalid:9092")
    assert code == 3
    assert steps(findings) == [("DNS", False)]
    assert "is the host name right?" in findings[0]["advice"]


def test_tls(authority: str) -> None:
    issued = CA.issue_cert("127.0.0.1")
    with open_broker(ssl_context=server_context(issued)) as broker:
        options = ("-X", "security_protocol=SSL", "-X", f"ssl_cafile={authority}")
        code, findings = ping(broker.bootstrap_servers, *options)
    assert code == 0
    assert steps(findings) == [(step, True) for step in ("DNS", "TCP", "TLS", "Kafka", "metadata")]


def in_the_past() -> trustme.LeafCert:
    from datetime import datetime, timezone

    return CA.issue_cert("127.0.0.1", not_after=datetime(2020, 1, 1, tzinfo=timezone.utc))


@pytest.mark.parametrize(
    ("issue", "trusted", "advice"),
    [
        (in_the_past, True, "the broker's certificate has expired"),
        (lambda: CA.issue_cert("elsewhere.example"), True, "the certificate is for another"),
        (lambda: CA.issue_cert("127.0.0.1"), False, "give the authority that signed"),
    ],
    ids=["expired", "for another name", "unknown authority"],
)
def test_certificates(issue: Any, trusted: bool, advice: str, authority: str) -> None:
    with open_broker(ssl_context=server_context(issue())) as broker:
        trust = ["-X", f"ssl_cafile={authority}"] if trusted else []
        code, findings = ping(broker.bootstrap_servers, "-X", "security_protocol=SSL", *trust)
    assert code == 3
    assert steps(findings)[-1] == ("TLS", False)
    assert findings[-1]["advice"].startswith(advice)


def test_a_client_certificate_is_wanted(authority: str) -> None:
    """With TLS 1.3 the broker says so after the handshake."""
    context = server_context(CA.issue_cert("127.0.0.1"))
    context.verify_mode = ssl.CERT_REQUIRED
    CA.configure_trust(context)
    with open_broker(ssl_context=context) as broker:
        options = ("-X", "security_protocol=SSL", "-X", f"ssl_cafile={authority}")
        code, findings = ping(broker.bootstrap_servers, *options)
    assert code == 3
    assert "ssl_certfile" in findings[-1]["advice"]


def test_no_tls_port(broker: Broker) -> None:
    code, findings = ping(broker.bootstrap_servers, "-X", "security_protocol=SSL")
    assert code == 3
    assert steps(findings)[-1] == ("TLS", False)
    assert findings[-1]["text"] == "TLS handshake: this port speaks Kafka's protocol without TLS"
    assert "use a port that speaks TLS, or security_protocol='PLAINTEXT'" in findings[-1]["advice"]


def test_a_tls_port_without_tls() -> None:
    with open_broker(ssl_context=server_context(CA.issue_cert("127.0.0.1"))) as broker:
        code, findings = ping(broker.bootstrap_servers, "-X", "socket_connection_setup_timeout_ms=500")
    assert code == 3
    assert steps(findings)[-1] == ("Kafka", False)
    assert findings[-1]["advice"] == "this is a TLS port: use security_protocol='SSL' or 'SASL_SSL'"


@pytest.mark.parametrize(
    ("options", "works", "advice"),
    [
        ("PLAIN me secret", True, ""),
        ("PLAIN me wrong", False, "are sasl_plain_username and sasl_plain_password right"),
    ],
)
def test_sasl(options: str, works: bool, advice: str) -> None:
    mechanism, *login = options.split()
    with open_broker(sasl_users={"me": "secret"}) as broker:
        code, findings = ping(
            broker.bootstrap_servers,
            *("-X", "security_protocol=SASL_PLAINTEXT", "-X", f"sasl_mechanism={mechanism}"),
            *("-X", f"sasl_plain_username={login[0]}", "-X", f"sasl_plain_password={login[1]}"),
        )
    assert code == (0 if works else 3)
    assert ("SASL", works) in steps(findings)
    assert advice in next(one for one in findings if one["step"] == "SASL")["advice"]


def test_a_listener_that_wants_sasl() -> None:
    """It tells its versions to all, and closes at the first other request."""
    with open_broker(sasl_users={"me": "secret"}) as broker:
        code, findings = ping(broker.bootstrap_servers)
    assert code == 3
    assert steps(findings)[-1] == ("metadata", False)
    assert findings[-1]["text"].startswith("this listener wants SASL, and offers: PLAIN")
    assert "sasl_mechanism" in findings[-1]["advice"]


def test_a_broker_that_closes_and_wants_nothing(broker: Broker) -> None:
    """What it is about is not known."""
    broker.drop_connections(api="Metadata", times=None)
    code, findings = ping(broker.bootstrap_servers)
    assert code == 3
    assert (findings[-1]["step"], findings[-1]["text"]) == ("metadata", "the broker closed the connection")


def test_an_advertised_address_that_cannot_be_reached(broker: Broker) -> None:
    """The classic: the bootstrap server works, what it names does not."""
    servers = broker.bootstrap_servers
    broker.advertise("127.0.0.1", 1)
    code, findings = ping(servers)
    assert code == 3
    assert steps(findings)[:4] == [("DNS", True), ("TCP", True), ("Kafka", True), ("metadata", True)]
    assert (findings[-1]["where"], findings[-1]["step"], findings[-1]["ok"]) == (NOBODY, "TCP", False)
    assert "the cluster advertises this address (advertised.listeners)" in findings[-1]["advice"]


def test_topics(broker: Broker) -> None:
    code, findings = ping(broker.bootstrap_servers, "missing")
    assert code == 3
    assert findings[-1]["where"] == "topic 'missing'"
    assert findings[-1]["text"].startswith("UNKNOWN_TOPIC_OR_PARTITION (3)")
    assert "is the name right?" in findings[-1]["advice"]
    assert "missing" not in broker.topics


def test_a_message_that_is_refused(broker: Broker) -> None:
    broker.answer("Produce", error="TOPIC_AUTHORIZATION_FAILED", times=None)
    code, findings = ping(broker.bootstrap_servers, "t", "--send")
    assert code == 3
    assert (findings[-1]["step"], findings[-1]["ok"]) == ("send", False)
    assert "TOPIC_AUTHORIZATION_FAILED" in findings[-1]["text"]


def test_send_needs_a_topic() -> None:
    result = type_("ping", "--send")
    assert result.exit_code == 2
    assert "--send needs a TOPIC" in result.stderr
