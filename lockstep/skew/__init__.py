"""Faults that are injected on purpose, one module a fault, in the path that serves: parity must find them and name them."""
