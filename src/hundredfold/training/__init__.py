"""Training: from a configuration to a finished run, interrupted and resumed to the bit."""
