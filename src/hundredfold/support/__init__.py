"""Helpers that the rest of the package shares: errors, files, text, devices, and processes."""
