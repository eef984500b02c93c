"""Networks, one family in each file, and their description in `model.json`."""
