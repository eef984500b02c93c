"""Metrics as pure functions: accuracy, calibration and confusion."""
