"""Run directories: what a run leaves on disk, how it is verified, and tables of runs."""
