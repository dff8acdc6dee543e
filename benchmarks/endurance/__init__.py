"""What a producer takes that is left alone, whose Kafka is away, or of which much is asked.

    python -m benchmarks.endurance [idle|down|frozen|many|topics|tasks ...] [--quick] [--embedded]
                                   [--minutes N] [--clients thread loop] [--results DIRECTORY]

``idle``    it has sent something and then nothing for ten minutes: processor time
``down``    Kafka is away for ten minutes, the buffer is full: processor time, lines logged, memory
``frozen``  the same, but its connections stay open
``many``    ten million messages: memory
``topics``  ten thousand topics: memory a topic, processor time when nothing is sent any more
``tasks``   a thousand tasks in `send`: whether they get room in the order in which they came

Each has a process of its own, and each client its turn: in a thread, and in the loop of the program.
Each has a Kafka of its own in other processes: a node of Apache Kafka, or with ``--embedded`` the embedded
broker. ``--quick`` takes seconds, has the embedded broker, and judges only what does not depend on the
machine: what is in the log, in which order, and how much is logged. The exit status is 1 if a target is
missed. Whole runs are kept in ``results/endurance.jsonl``. It needs Linux.
"""
