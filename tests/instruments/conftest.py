"""The fixtures that users get."""

from trio_kprod.testing.fixtures import kafka_broker

__all__ = ["kafka_broker"]  # asked for by name
