"""One picture, from anywhere: a file, a folder, an address, an array."""
