"""One Kafka process: a broker and controller in one JVM, on loopback ports of its own.

It lives in a session of its own, so that a Ctrl-C in the terminal reaches the tests and not the broker
under them, and on Linux it dies with the process that started it, however that ends.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import NamedTuple

USER, PASSWORD = "alice", "alice's secret"

_LOG4J = """\
status = error
appender.file.type = File
appender.file.name = file
appender.file.fileName = {path}
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = %d %p %c: %m%n%throwable
rootLogger.level = warn
rootLogger.appenderRef.file.ref = file
"""

# PR_SET_PDEATHSIG is 1. The shim sets it and becomes java; a `preexec_fn` is not safe beside threads.
_DIE_WITH_PARENT = """\
import ctypes, os, signal, sys
if sys.platform == "linux":
    ctypes.CDLL(None).prctl(1, int(signal.SIGKILL))
    if os.getppid() != int(sys.argv[1]):
        sys.exit("the parent has ended")
os.execvp(sys.argv[2], sys.argv[2:])
"""


class Ports(NamedTuple):
    """The loopback port of each listener of a node."""

    plaintext: int
    controller: int
    sasl: int
    tls: int


def free_ports(count: int) -> list[Ports]:
    """Ports nobody listens on, four for each of `count` nodes.

    They are below the range from which the system takes the ports of outgoing connections (32768 on
    Linux): a client that keeps trying a port of that range while its broker is down may in the end be
    connected to itself, and then the broker cannot come back.
    """
    found: list[int] = []
    with contextlib.ExitStack() as held:
        while len(found) < count * len(Ports._fields):
            listener = held.enter_context(socket.socket())
            with contextlib.suppress(OSError):  # taken: try another
                listener.bind(("127.0.0.1", random.randrange(20_000, 32_000)))
                found.append(listener.getsockname()[1])
    numbers = iter(found)
    return [Ports(*(next(numbers) for _ in Ports._fields)) for _ in range(count)]


class Node:
    """A Kafka node in `directory`: configured and formatted at once, running between `start` and `kill`.

    Args:
        jars (Path): the directory of Kafka's jars.
        directory (Path): an empty directory for its data, configuration and log.
        number (int): its id, from 1.
        ports: the ports of all nodes of the cluster, in the order of their ids.
        pem (Path | None): private key and certificate of its TLS listener; None for no such listener.
        settings: more of Kafka's own settings; they come last and win.
    """

    def __init__(
        self,
        jars: Path,
        directory: Path,
        number: int,
        ports: list[Ports],
        pem: Path | None,
        settings: Mapping[str, str],
    ) -> None:
        self.ports = ports[number - 1]
        self._jars = jars
        self._directory = directory
        self._log = directory / "server.log"
        self._config = directory / "server.properties"
        self._process: subprocess.Popen[bytes] | None = None
        properties = {
            **_quorum(number, ports),
            **_listeners(self.ports, tls=pem is not None),
            **_security(pem),
            **_small_cluster(directory / "data"),
            **settings,
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), "utf-8")
        (directory / "log4j2.properties").write_text(_LOG4J.format(path=self._log), "utf-8")

    def format(self, cluster_id: str) -> None:
        """Write the identity and the SCRAM users into the node's storage, once before it starts."""
        users = [
            part
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for part in ("--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]")
        ]
        arguments = ["format", f"--cluster-id={cluster_id}", "-c", str(self._config), *users]
        done = subprocess.run(
            self._java("kafka.tools.StorageTool", *arguments), capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"could not format Kafka's storage: {done.stdout}{done.stderr}")

    def configure(self, bootstrap_servers: str, *arguments: str) -> None:
        """Change settings of the running cluster, with the arguments of ``kafka-configs.sh``."""
        command = self._java("kafka.admin.ConfigCommand", "--bootstrap-server", bootstrap_servers, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"could not configure Kafka: {done.stdout}{done.stderr}")

    def start(self) -> None:
        """Start the process; when this returns it is not ready yet."""
        shim = [sys.executable, "-c", _DIE_WITH_PARENT, str(os.getpid())]
        with (self._directory / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [*shim, *self._java("kafka.Kafka", str(self._config))],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether its process has been started and has not ended; a paused one is running."""
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """End it at once, as kill -9 does; no harm if it has ended."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()

    def pause(self) -> None:
        """Freeze it: its sockets stay open and nothing answers."""
        self._signal(signal.SIGSTOP)

    def resume(self) -> None:
        """Let a frozen one go on."""
        self._signal(signal.SIGCONT)

    def tail(self) -> str:
        """The end of what it logged and printed."""
        texts = (path.read_text("utf-8", "replace") for path in self._written() if path.exists())
        return "\n".join(text[-4000:] for text in texts)

    def _written(self) -> Iterable[Path]:
        return self._log, self._directory / "output"

    def _signal(self, number: signal.Signals) -> None:
        if self._process is None:
            raise RuntimeError("this node is not running")
        self._process.send_signal(number)

    def _java(self, main: str, *arguments: str) -> list[str]:
        return [
            "java",
            "-Xmx1g",
            f"-Dlog4j2.configurationFile={self._directory / 'log4j2.properties'}",
            "-cp",
            f"{self._jars}/*",
            main,
            *arguments,
        ]


def _quorum(number: int, ports: list[Ports]) -> dict[str, str]:
    voters = ",".join(f"{i}@127.0.0.1:{each.controller}" for i, each in enumerate(ports, 1))
    return {"process.roles": "broker,controller", "node.id": str(number), "controller.quorum.voters": voters}


def _listeners(ports: Ports, *, tls: bool) -> dict[str, str]:
    advertised = f"PLAINTEXT://127.0.0.1:{ports.plaintext},SASL_PLAINTEXT://127.0.0.1:{ports.sasl}"
    if tls:
        advertised += f",SSL://127.0.0.1:{ports.tls}"
    names = ("PLAINTEXT", "SASL_PLAINTEXT", "SSL")
    return {
        "listeners": f"{advertised},CONTROLLER://127.0.0.1:{ports.controller}",
        "advertised.listeners": advertised,
        "controller.listener.names": "CONTROLLER",
        "inter.broker.listener.name": "PLAINTEXT",
        "listener.security.protocol.map": ",".join(
            ["CONTROLLER:PLAINTEXT", *(f"{name}:{name}" for name in names)]
        ),
    }


def _security(pem: Path | None) -> dict[str, str]:
    sasl = "listener.name.sasl_plaintext"
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule"
    settings = {
        f"{sasl}.sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512",
        f"{sasl}.plain.sasl.jaas.config": f'{plain} required user_{USER}="{PASSWORD}";',
        f"{sasl}.scram-sha-256.sasl.jaas.config": f"{scram} required;",
        f"{sasl}.scram-sha-512.sasl.jaas.config": f"{scram} required;",
    }
    if pem is not None:
        settings |= {
            "listener.name.ssl.ssl.keystore.type": "PEM",
            "listener.name.ssl.ssl.keystore.location": str(pem),
        }
    return settings


def _small_cluster(data: Path) -> dict[str, str]:
    return {
        "log.dirs": str(data),
        "num.partitions": "1",
        "auto.create.topics.enable": "true",
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
        # How long a killed node is still believed to be alive, and thus how long its successor must wait.
        "broker.session.timeout.ms": "3000",
        "broker.heartbeat.interval.ms": "500",
    }
