"""Fault injection campaigns. Small ones run with the tests, and `make faults` runs large ones."""
