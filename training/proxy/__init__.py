"""Proxy distributions: training on generated images (PORT), and ranking and choosing them (ARC)."""
