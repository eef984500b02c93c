"""Training: from a configuration to a finished run, which can be interrupted and resumed."""
