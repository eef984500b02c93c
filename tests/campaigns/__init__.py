"""Campaigns of faults: small ones run with the tests, `make faults` runs the large ones."""
