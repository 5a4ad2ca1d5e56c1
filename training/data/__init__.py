"""Data sets as uint8 arrays. A new one: one file, one line in DATASETS, one row in its test table."""
