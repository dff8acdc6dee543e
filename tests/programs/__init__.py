"""Whole programs, each run in a process of its own by `tests.test_programs`."""
