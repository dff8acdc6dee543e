"""The produce core against a simulated cluster: random faults, each run reproducible from its seed.

`cluster` models what brokers do with producer ids, epochs and sequences, and how logs replicate; `run`
plays one client and one cluster against each other and checks the history. Run one seed, or many, with
``python -m tests.simulation 17`` or ``python -m tests.simulation 0 100000``.
"""
