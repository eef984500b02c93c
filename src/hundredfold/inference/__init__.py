"""From pictures to logits, and from logits to ranked classes."""
