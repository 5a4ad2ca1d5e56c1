"""Inputs that nobody thought of, for what reads the bytes of strangers."""
