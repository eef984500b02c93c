"""Evaluate, compare and explain finished runs."""
