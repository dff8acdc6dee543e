"""A real cluster, or the embedded broker, under a random schedule of faults for as long as told.

    python -m benchmarks.soak [--minutes N] [--seed S] [--nodes N | --embedded] [--loop | --threads]
                              [--acks all|1|0] [--rate N] [--only KIND ...] [--results DIRECTORY]

The seed decides which faults come in which order, and how long each lasts (`schedule`). `real` and
`embedded` make them. Producers are opened and left all the time, several beside each other (`lives`), and
tasks use them in every way there is (`senders`). `ledger` keeps one byte for each message. At the end the
topics are read back: each accepted message must be in the log once and in order, or have been told
undelivered truthfully. What else must hold: leaving a block ends within ``shutdown_timeout``, one second
and a margin; no message waits for minutes (a stall). Nothing else is timed, so a slow machine fails
nothing. A line shows how it goes: in a terminal one that is written anew each second, in a file one each
minute.

The exit status is 0 only if all of it holds. Runs of half an hour and more are kept in
``results/soak.jsonl``, shorter ones in ``results/samples``. The log of warnings is there, too. It needs
Linux.
"""
