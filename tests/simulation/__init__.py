"""The produce core against a simulated cluster: random faults, each run reproducible from its seed.

``log`` and ``cluster`` model what brokers do, ``network`` how requests travel, ``history`` and ``bounds``
what the producer promises. ``world`` plays one producer and one cluster against each other, ``faults`` are
the events that can happen to them, ``setting`` the conditions of a run and ``run`` its course. ``shrink``
and ``timeline`` explain a run that went wrong. ``python -m tests.simulation --help`` runs them.
"""
