"""What is wrong with data before training: damage, copies, near duplicates, labels."""
