"""Figures of the five related systems."""
