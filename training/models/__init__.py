"""Classifiers. A new one: one file, one line in MODELS, one row in its test table."""
