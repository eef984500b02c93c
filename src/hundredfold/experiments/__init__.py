"""Questions that are asked of a recipe or of data: learning rates, search, ablation."""
