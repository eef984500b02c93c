"""What every other folder stands on: errors, files, the terminal, signals, processes."""
