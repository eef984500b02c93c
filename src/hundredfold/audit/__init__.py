"""Find problems in data before training: damaged files, copies, near duplicates, wrong labels."""
