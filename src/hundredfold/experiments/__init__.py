"""Experiments with a recipe or with data: learning rates, tuning, ablation, exploration."""
