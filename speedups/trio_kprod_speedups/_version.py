"""The version: always that of trio_kprod, which ignores any other."""

__version__ = "0.1.0"
