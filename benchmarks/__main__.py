"""Every figure there is, one command after the other, and ``RESULTS.md`` from what they found.

    python -m benchmarks [--rounds N] [--quick] [--bootstrap-servers HOST:PORT] [--only COMMAND ...]
    python -m benchmarks --docs

``--only`` measures some of them again, or none, if none is named; the page and the plots are made anew from
all that has been kept. ``--docs`` measures nothing: it makes the page and the plots, and puts the figures
into ``docs/speed.md`` and the README. It makes ``ENDURANCE.md`` as well, from what `benchmarks.endurance` and
`benchmarks.soak` have kept; they take hours, and are not run from here. What the targets need is measured
in one sitting of about half an hour, on two cores, with the three rounds there are by default::

    python -m benchmarks --only throughput latency responsiveness

The others take a quarter of an hour more.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

from benchmarks import speed_page
from benchmarks.endurance import page as endurance_page
from benchmarks.harness.command import draw
from benchmarks.harness.results import DIRECTORY, Results
from benchmarks.page import COMMANDS, page

PAGE = Path(__file__).with_name("RESULTS.md")

#: What is written by hand, such as why a target is missed; it becomes part of the page.
NOTES = Path(__file__).with_name("NOTES.md")

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
    parser.add_argument("--only", nargs="*", choices=COMMANDS, default=list(COMMANDS), metavar="COMMAND")
    parser.add_argument("--results", type=Path)
    parser.add_argument("--docs", action="store_true")
    given = parser.parse_args()
    directory = given.results or DIRECTORY
    failed = [] if given.docs else [name for name in given.only if not measure(name, given)]
    write(directory)
    if given.docs:
        speed_page.put(speed_page.PAGE, speed_page.for_page(kept(directory)))
        speed_page.put(speed_page.README, speed_page.for_readme(kept(directory)))
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


def kept(directory: Path) -> dict[str, Results]:
    """What has been found so far, by command."""
    every = {name: Results.load_from(directory, name) for name in COMMANDS}
    return {name: results for name, results in every.items() if results is not None}


def write(directory: Path) -> None:
    """Draw the plots and make the page from what is kept in `directory`; the page stands beside it."""
    every = kept(directory)
    for name, results in every.items():
        draw(COMMANDS[name], directory, results.found)
    text = page(every, directory, NOTES.read_text("utf-8") if NOTES.exists() else "")
    (directory.parent / PAGE.name).write_text(text, "utf-8")
    (directory.parent / endurance_page.NAME).write_text(endurance_page.page(directory), "utf-8")


if __name__ == "__main__":
    main()
