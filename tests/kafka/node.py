"""One Kafka process on loopback ports of its own, and the ZooKeeper that old ones need."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.kafka.java import Java
from tests.kafka.listeners import PASSWORD, USER, Listener, listener_settings
from tests.kafka.process import Process

#: The listener of the controllers among themselves; clients are not told of it.
CONTROLLER = "CONTROLLER"

#: Settings with which a node asks who may do what: those who come without a log-in may do all, and others
#: what they are given. (With a ZooKeeper, the authorizer is ``kafka.security.authorizer.AclAuthorizer``.)
RIGHTS = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "super.users": "User:ANONYMOUS",
}


class ZooKeeper(Process):
    """The ZooKeeper of a cluster of old nodes, on a loopback port."""

    def __init__(self, java: Java, port: int) -> None:
        self._port = port
        config = java.directory / "zookeeper.properties"
        config.write_text(_ZOOKEEPER.format(data=java.directory / "data", port=port), "utf-8")
        super().__init__(
            java.command("org.apache.zookeeper.server.quorum.QuorumPeerMain", str(config)), java.output
        )

    @property
    def address(self) -> str:
        """Where it listens."""
        return f"127.0.0.1:{self._port}"

    def knows(self, broker: int) -> bool:
        """Whether it believes that a broker of this id is alive, and thus would refuse another."""
        with socket.create_connection(("127.0.0.1", self._port), timeout=5) as connection:
            connection.sendall(b"dump")
            with connection.makefile("rb") as answer:
                return any(line.strip() == b"/brokers/ids/%d" % broker for line in answer)


# Sessions end after two to twenty ticks, as the client wishes.
_ZOOKEEPER = """\
dataDir={data}
clientPort={port}
clientPortAddress=127.0.0.1
tickTime=500
maxClientCnxns=0
admin.enableServer=false
4lw.commands.whitelist=dump
"""


class Node(Process):
    """A Kafka node: configured at once, running between `start` and `kill`.

    Args:
        java: its jars, and an empty directory for its files.
        data (Path): the directory of its topics.
        number (int): its id, from 1.
        listeners: what it listens on, by name.
        own_ports: where it listens, by the listener's name.
        ports: where others reach each node, in the order of their ids, by the listener's name.
        zookeeper: that of an old Kafka; None for one that needs none.
        settings: more of Kafka's own settings; they come last and win.
    """

    def __init__(
        self,
        java: Java,
        data: Path,
        number: int,
        listeners: Mapping[str, Listener],
        own_ports: Mapping[str, int],
        ports: Sequence[Mapping[str, int]],
        zookeeper: ZooKeeper | None,
        settings: Mapping[str, str],
    ) -> None:
        self.ports = ports[number - 1]
        self.java = java
        self._number = number
        self._zookeeper = zookeeper
        self._config = java.directory / "server.properties"
        mechanisms = (one.settings.get("sasl.enabled.mechanisms", "") for one in listeners.values())
        self._scram = any("SCRAM" in one for one in mechanisms)
        properties = {
            **(
                _quorum(number, ports, java.directory)
                if zookeeper is None
                else _registered(number, zookeeper)
            ),
            **listener_settings(listeners, own_ports, self.ports, hidden=None if zookeeper else CONTROLLER),
            **_small_cluster(data),
            **settings,
        }
        self._config.write_text("".join(f"{name}={value}\n" for name, value in properties.items()), "utf-8")
        super().__init__(java.command("kafka.Kafka", str(self._config)), java.output)

    def format(self, cluster_id: str) -> None:
        """Write the identity and the SCRAM users into the node's storage, once before it starts."""
        users = [
            part
            for mechanism in ("SCRAM-SHA-256", "SCRAM-SHA-512")
            for part in ("--add-scram", f"{mechanism}=[name={USER},password={PASSWORD}]")
        ]
        arguments = ["format", f"--cluster-id={cluster_id}", "-c", str(self._config)]
        self.java.run("kafka.tools.StorageTool", *arguments, *(users if self._scram else []))

    @property
    def address(self) -> str:
        """Where it listens for clients without encryption and log-in."""
        return f"127.0.0.1:{self.ports['PLAINTEXT']}"

    @property
    def believed_alive(self) -> bool:
        """Whether a ZooKeeper still believes in the process before, and so would refuse a new one."""
        return self._zookeeper is not None and self._zookeeper.knows(self._number)


def _quorum(number: int, ports: Sequence[Mapping[str, int]], directory: Path) -> dict[str, str]:
    voters = ",".join(f"{i}@127.0.0.1:{each[CONTROLLER]}" for i, each in enumerate(ports, 1))
    alone = len(ports) == 1
    return {
        "process.roles": "broker,controller",
        "node.id": str(number),
        "controller.quorum.voters": voters,
        "controller.listener.names": CONTROLLER,
        # Apart from the topics: a disk that is full of those is no end of the cluster's memory.
        "metadata.log.dir": str(directory / "metadata"),
        # How long a killed node is still believed to be alive, and thus how long its successor must wait.
        # Not less: a machine that is busy has no time for a node that is well.
        "broker.session.timeout.ms": "2000" if alone else "3000",
        "broker.heartbeat.interval.ms": "300" if alone else "500",
    }


def _registered(number: int, zookeeper: ZooKeeper) -> dict[str, str]:
    return {
        "broker.id": str(number),
        "zookeeper.connect": zookeeper.address,
        "zookeeper.connection.timeout.ms": "60000",  # it starts at the same time
        "zookeeper.session.timeout.ms": "2000",
    }


def _small_cluster(data: Path) -> dict[str, str]:
    return {
        "log.dirs": str(data),
        "inter.broker.listener.name": "PLAINTEXT",
        "num.partitions": "1",
        "auto.create.topics.enable": "true",
        "offsets.topic.num.partitions": "1",
        "offsets.topic.replication.factor": "1",
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        "group.initial.rebalance.delay.ms": "0",
    }
