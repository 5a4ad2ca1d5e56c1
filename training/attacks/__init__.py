"""Attacks. A new one: one file, one line in ATTACKS, one row in its test table."""
