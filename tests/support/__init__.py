"""What tests share: data to make, runs to change, processes to stop."""
