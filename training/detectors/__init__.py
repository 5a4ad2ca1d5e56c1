"""Detectors. A new one: one file, one line in DETECTORS, one row in its test table."""
