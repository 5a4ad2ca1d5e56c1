"""Training losses. A new one: one file, one line in LOSSES, one row in its test table."""
