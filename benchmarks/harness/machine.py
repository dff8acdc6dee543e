"""What the figures were measured on."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
from pathlib import Path

_PACKAGES = (
    "trio_kprod_speedups",
    "trio",
    "kafka-python",
    "aiokafka",
    "confluent-kafka",
    "crc32c",
    "lz4",
    "cramjam",
    "zstandard",
)


def machine() -> dict[str, str]:
    """Processor, system and versions."""
    return {
        "processor": f"{os.cpu_count()} x {_processor()}",
        "memory": f"{os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "Python": platform.python_version(),
        **_versions(),
    }


def load() -> float:
    """How many processes wanted to run in the last minute: what else the machine was doing."""
    return os.getloadavg()[0]


def _processor() -> str:
    with contextlib.suppress(OSError):  # only Linux has it
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    return platform.processor() or platform.machine()


def _versions() -> dict[str, str]:
    import trio_kprod

    found = {"trio_kprod": trio_kprod.__version__}
    for name in _PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    with contextlib.suppress(ImportError):
        import confluent_kafka

        found["librdkafka"] = confluent_kafka.libversion()[0]
    return found
