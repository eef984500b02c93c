"""Networks, one family a file, and what `model.json` says about them."""
