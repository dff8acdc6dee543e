"""The whole producer under random faults, seen as its users see it; each run reproducible from its seed.

A seed decides the settings, what the senders do and when they are cancelled (`senders`), what befalls the
broker (`weather`) and how the block ends (`storm`). `history` notes what the program was told, `verdict` says
whether that can be true. No run looks inside the producer.

``python -m tests.chaos --seeds 10000`` runs many in virtual time, on a broker in memory; ``--threads`` with
a worker thread, sockets and real time; ``--loop`` with sockets and real time, all in one loop.
``python -m tests.chaos --first 17 --seeds 1 --log`` shows one in detail.
"""
