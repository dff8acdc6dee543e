"""The classes of a Kafka as its nodes have them in memory, kept in a file: with it nodes start twice as fast.

Java calls it an archive for application class-data sharing (JEP 350), and ignores one of another Java.
"""

from __future__ import annotations

from tests.kafka.cluster import Cluster
from tests.kafka.jars import kafka_jars, locked
from tests.kafka.java import QUICK_START, classes_of


def keep_classes() -> None:
    """Make the file for the Kafka of most tests, beside its jars, once; raises `Unavailable`."""
    kept = classes_of(kafka_jars())
    new = kept.with_suffix(".new")
    with locked(kept.with_suffix(".lock")):
        if not kept.exists():
            with Cluster(java_options=(*QUICK_START, f"-XX:ArchiveClassesAtExit={new}")) as cluster:
                cluster.nodes[0].stop()
            new.rename(kept)
