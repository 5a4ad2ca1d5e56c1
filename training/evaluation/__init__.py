"""Offline evaluation of a bundle: attacks, metrics, report."""
