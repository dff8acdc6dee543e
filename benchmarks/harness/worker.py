"""The process of one round: ``python -m benchmarks.harness.worker JOB`` prints ``ready``, reads a line, runs,
and prints what it took, as JSON."""

from __future__ import annotations

import importlib
import logging
import sys

from benchmarks.peers import PEERS

from .job import Job
from .rows import Rows
from .watch import Watch


def main() -> None:
    """Run the job given on the command line."""
    logging.disable()  # what producers log of new topics and of outages is not what is looked at
    job = Job.loads(sys.argv[1])
    family = importlib.import_module(f"benchmarks.peers.{PEERS[job.peer].family}")
    watch = Watch()
    family.run(job, Rows(job), watch)
    print(watch.result(job).dumps())


if __name__ == "__main__":
    main()
