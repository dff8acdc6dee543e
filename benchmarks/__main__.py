"""Every figure there is, one command after the other, and ``RESULTS.md`` from what they found.

    python -m benchmarks [--rounds N] [--quick] [--bootstrap-servers HOST:PORT] [--only COMMAND ...]

``--only`` measures some of them again; the page is rebuilt from all that has been kept.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks.harness.results import DIRECTORY, Results
from benchmarks.page import page

COMMANDS = ("throughput", "latency", "responsiveness", "cost", "memory", "recovery", "growth")
PAGE = Path(__file__).with_name("RESULTS.md")

#: They stop Kafka, so they start one of their own.
WITH_OWN_KAFKA = ("growth", "memory", "recovery")


def main() -> None:
    """Measure, then write the page."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--bootstrap-servers")
    parser.add_argument("--only", nargs="*", choices=COMMANDS, default=COMMANDS, metavar="COMMAND")
    parser.add_argument("--results", type=Path)
    given = parser.parse_args()
    failed = [name for name in given.only if not measure(name, given)]
    write(given.results or DIRECTORY)
    if failed:
        raise SystemExit(f"failed: {', '.join(failed)}")


def measure(name: str, given: argparse.Namespace) -> bool:
    """Run one command; whether it was content."""
    command = [sys.executable, "-m", f"benchmarks.{name}"]
    command += ["--results", str(given.results)] if given.results else []
    command += ["--rounds", str(given.rounds)] if given.rounds else []
    command += ["--quick"] if given.quick else []
    if given.bootstrap_servers and name not in WITH_OWN_KAFKA:
        command += ["--bootstrap-servers", given.bootstrap_servers]
    print(f"\n== {name}", flush=True)
    return subprocess.run(command, check=False).returncode == 0


def write(directory: Path) -> None:
    """Rebuild the page from what is kept in `directory`; it stands beside the directory."""
    kept = {name: Results.load_from(directory, name) for name in COMMANDS}
    text = page({name: results for name, results in kept.items() if results is not None}, directory.name)
    (directory.parent / PAGE.name).write_text(text, "utf-8")


if __name__ == "__main__":
    main()
