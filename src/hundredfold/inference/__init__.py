"""Predict pictures: compute logits, and rank classes by probability."""
