"""What scores mean: accuracy, calibration and confusion, as pure functions of logits."""
